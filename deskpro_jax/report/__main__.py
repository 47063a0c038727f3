"""`python -m deskpro_jax.report` is `deskpro report`."""

from __future__ import annotations

import sys

from deskpro_jax.cli.report import main

if __name__ == "__main__":
    sys.exit(main())
