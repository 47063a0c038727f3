"""Runs command lines one after the other, each in a process of its own that has imported everything already.

As a script: reads lists of arguments as JSON, runs `deskpro` with each in a fork of itself, and prints [exit code,
standard output, standard error] of each. A process that imports JAX anew takes seconds, a fork takes none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


def run(commands: Iterable[Sequence[str]], cwd: Path) -> list[Ended]:
    """Runs `deskpro` with each list of arguments, in `cwd`."""
    import runs

    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps([list(arguments) for arguments in commands]),
        cwd=cwd,
        env=runs.environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    return [Ended(*ended) for ended in json.loads(done.stdout)]


def _fork(arguments: list[str]) -> Ended:
    from deskpro_jax.cli import deskpro

    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            code = 70  # unless it ends as a command does
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.argv = ["deskpro", *arguments]
                code = deskpro.main(arguments)
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        status = os.waitpid(child, 0)[1]
        for stream in (out, err):
            stream.seek(0)
        return Ended(os.waitstatus_to_exitcode(status), out.read(), err.read())


if __name__ == "__main__":
    import deskpro_jax.cli.train  # noqa: F401 # JAX and all that a command needs

    print(json.dumps([_fork(arguments) for arguments in json.load(sys.stdin)]))
