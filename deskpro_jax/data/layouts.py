"""`python -m deskpro_jax.data.layouts` is `deskpro draw`."""

from __future__ import annotations

import sys

from deskpro_jax.cli.draw import main

if __name__ == "__main__":
    sys.exit(main())
