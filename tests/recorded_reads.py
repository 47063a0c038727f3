"""Script of test_sharded.py: the training command with streams of a few numbers, which writes down what it read.

Arguments: the file that gets, when it ends, the names of the training images that this process read, one a read;
SIGNAL PHASE STEP as of interrupted.py, or "-" for none; then those of deskpro_jax.main.
"""

from __future__ import annotations

import sys
from pathlib import Path
from unittest import mock

from absl import app

import interrupted
import stand_in
from deskpro_jax.cli import train as main
from deskpro_jax.data.load import dataset
from deskpro_jax.data.schema import Example


def record_reads() -> list[str]:
    """Returns a list that grows by the name of every image of a training split that this process reads."""
    names: list[str] = []
    read = dataset.ReIDSplit.__getitem__

    def counted(split: dataset.ReIDSplit, index: int) -> Example:
        if split.split == "train":
            names.append(split.image_id[index])
        return read(split, index)

    mock.patch.object(dataset.ReIDSplit, "__getitem__", counted).start()
    return names


def run(file: Path, arguments: list[str]) -> None:
    """Runs the command line, and writes what was read however it ends."""
    names = record_reads()
    try:
        with stand_in.small_streams():
            if arguments[0] == "-":
                app.run(main.main, ["main", *arguments[1:]], flags_parser=main.parse_flags)
            else:
                interrupted.run(arguments[0], arguments[1], int(arguments[2]), arguments[3:])
    finally:
        file.write_text("\n".join(names), encoding="utf-8")


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2:])
