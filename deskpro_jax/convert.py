"""`python -m deskpro_jax.convert` is `deskpro convert`."""

from __future__ import annotations

import sys

from deskpro_jax.cli.convert import main

if __name__ == "__main__":
    sys.exit(main())
