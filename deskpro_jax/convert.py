"""`python -m deskpro_jax.convert` is `deskpro convert`."""

from __future__ import annotations

import sys

from deskpro_jax.cli.deskpro import main

if __name__ == "__main__":
    sys.exit(main(["convert", *sys.argv[1:]]))
