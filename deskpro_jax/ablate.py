"""`python -m deskpro_jax.ablate` is `deskpro ablate`."""

from __future__ import annotations

import sys

from deskpro_jax.cli.ablate import main

if __name__ == "__main__":
    sys.exit(main())
