"""`python -m deskpro_jax.search` is `deskpro search`."""

from __future__ import annotations

import sys

from deskpro_jax.cli.search import main

if __name__ == "__main__":
    sys.exit(main())
