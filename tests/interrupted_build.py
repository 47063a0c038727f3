"""The build command with four images a shard, killed at one place: `python interrupted_build.py WHERE NUMBER ARGS...`.

WHERE is "image" (before the NUMBER-th image is read) or "collecting" (when the shards are in the folder that is about
to become the dataset and the NUMBER-th split is looked at).
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from data_prep import build
from deskpro_jax.data.build import builder, shards


def kill_at(number: int, call: Any) -> Any:
    """Returns `call`, killing the process before its number-th use."""
    used = 0

    def counted(*arguments: Any) -> Any:
        nonlocal used
        used += 1
        if used == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments)

    return counted


if __name__ == "__main__":
    where, number = sys.argv[1], int(sys.argv[2])
    shards.IMAGES = 4
    if where == "image":
        shards.assemble = kill_at(number, shards.assemble)
    elif where == "collecting":
        builder.checksum = kill_at(number, builder.checksum)
    sys.exit(build.main(sys.argv[3:]))
