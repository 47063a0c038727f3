"""`python -m deskpro_jax.main` is `deskpro train`."""

from __future__ import annotations

import sys

from deskpro_jax.cli.train import command

if __name__ == "__main__":
    sys.exit(command())
