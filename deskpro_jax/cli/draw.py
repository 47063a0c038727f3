"""Command line: draws a synthetic dataset and writes it as prepared folders.

deskpro draw --size small --seed 0 --out DIR
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from deskpro_jax.cli.arguments import count
from deskpro_jax.cli.commands import command_parser
from deskpro_jax.data.build.prepared_examples import synthetic_origin, write_prepared
from deskpro_jax.data.synthetic import generate
from deskpro_jax.errors import end_command


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes a synthetic dataset as prepared folders; returns the exit code."""
    parser = command_parser("draw", main.__doc__)
    parser.add_argument("--size", default="small", help=f"one of {', '.join(generate.SIZES)} (default: small)")
    parser.add_argument("--seed", type=count, default=0, help="seed of the drawn people (default: 0)")
    parser.add_argument("--out", required=True, help="folder to write; it must not exist, or be empty")
    parser.add_argument("--workers", type=count, default=0, help="processes that draw (default: 0, this one)")
    options = parser.parse_args(arguments)

    def write() -> None:
        examples = generate.generate(options.size, options.seed, options.workers)
        name = f"synthetic_{options.size}"
        out = write_prepared(examples, options.out, name, synthetic_origin(options.size, options.seed))
        print(f"{name} written to {out}")

    return end_command(write)


if __name__ == "__main__":
    sys.exit(main())
