"""Entry of `python -m deskpro_jax.report`."""

from __future__ import annotations

import sys

from deskpro_jax.report.command import main

if __name__ == "__main__":
    sys.exit(main())
