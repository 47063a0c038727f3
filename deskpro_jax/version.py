"""`python -m deskpro_jax.version` is `deskpro version`."""

from __future__ import annotations

import sys

from deskpro_jax.cli.version import main

if __name__ == "__main__":
    sys.exit(main())
