"""`python -m deskpro_jax.convert` is `deskpro convert`."""

from __future__ import annotations

import sys

from deskpro_jax.cli import deskpro
from deskpro_jax.cli.convert import main as main

if __name__ == "__main__":
    sys.exit(deskpro.main(["convert", *sys.argv[1:]]))  # which ends cleanly on SIGTERM
