"""Entry of `python -m deskpro_jax.report`."""

from __future__ import annotations

from deskpro_jax.huge_pages import start_anew

if __name__ == "__main__":
    start_anew()  # before the imports that take seconds

import sys

from deskpro_jax.report.command import main

if __name__ == "__main__":
    sys.exit(main())
