"""`python -m deskpro_jax.embed` is `deskpro embed`."""

from __future__ import annotations

import sys

from deskpro_jax.cli.embed import main

if __name__ == "__main__":
    sys.exit(main())
