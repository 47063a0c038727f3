"""`python -m deskpro_jax.convert` is `deskpro convert`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from deskpro_jax.cli import deskpro


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `deskpro convert`, which ends cleanly on SIGTERM; returns the exit code."""
    return deskpro.main(["convert", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
