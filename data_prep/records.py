"""What is done of an output folder: its photos in chunks, and for each stage one file a chunk that is finished.

A chunk is a fixed run of photos. A stage works through a chunk in the same batches whenever it starts, and writes the
chunk's record last, so that a run that was killed goes on with the first chunk without a record and computes the same
numbers. Nothing is ever read or written twice as the folder grows: opening it lists one folder a stage.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from deskpro_jax.errors import InputError, RunError
from deskpro_jax.storage.files import require_json, write_bytes
from deskpro_jax.storage.locks import locked

RECORDS = "records"
PARTIAL = ".partial"  # files being written; the same file system, so that renaming is atomic
CHUNK = 64  # photos; a killed run repeats at most this many of a stage whose output is not a file each

Row = dict[str, Any]  # what a stage found out about one photo


class StageRecords:
    """The bookkeeping of one output folder; one process at a time may hold it.

    Attributes:
        chunks: names of the photos of each chunk, those that are gone from the photos' folder included.
        present: the photos that are there now.
    """

    def __init__(self, out: Path):
        """Takes hold of a folder that exists; `close` (or leaving a with block) gives it back.

        Raises:
            RunError: another process is at work in it.
        """
        self.out = out
        self._lock = contextlib.ExitStack()
        self._lock.enter_context(locked(out, f"another run is at work in {out}: wait for it, or give another --out."))
        self.partial = out / PARTIAL
        shutil.rmtree(self.partial, ignore_errors=True)  # left by a process that was killed
        self.partial.mkdir()
        self.chunks: list[list[str]] = []
        self.present: frozenset[str] = frozenset()
        self._done: dict[str, set[int]] = {}

    def __enter__(self) -> StageRecords:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Removes unfinished files and lets other processes in."""
        shutil.rmtree(self.partial, ignore_errors=True)
        self._lock.close()

    def write_file(self, path: Path, content: bytes) -> None:
        """Writes a file of the output folder atomically; its own folder is made.

        Raises:
            OSError: the disk is full, or not writable.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content, self.partial)

    def settle_photos(self, names: Sequence[str], chunk: int = CHUNK) -> tuple[int, int]:
        """Takes the photos that are there now: those not met before become new chunks.

        Args:
            names: the photos, in order.
            chunk: photos in each new chunk.

        Returns:
            How many photos came to a folder that had some, and how many are gone.

        Raises:
            InputError: the folder was begun with photos none of which is there.
        """
        file = self.out / RECORDS / "chunks.jsonl"
        self.chunks = []
        if file.exists():
            with file.open(encoding="utf-8") as lines:
                self.chunks = [json.loads(line) for line in lines]
        known = {name for names in self.chunks for name in names}
        self.present = frozenset(names)
        if known and not known & self.present:
            raise InputError(
                f"{self.out} was made from other photos (the first was {self.chunks[0][0]}): correct --images, or give "
                "another --out."
            )
        new = [name for name in names if name not in known]
        if new:
            self.chunks += [new[start : start + chunk] for start in range(0, len(new), chunk)]
            lines_ = "".join(json.dumps(names, ensure_ascii=False) + "\n" for names in self.chunks)
            self.write_file(file, lines_.encode())
        return len(new) if known else 0, len(known - self.present)

    def done(self, stage: str) -> set[int]:
        """Returns the numbers of the chunks that a stage has finished."""
        if stage not in self._done:
            folder = self.out / RECORDS / stage
            found = os.listdir(folder) if folder.is_dir() else []
            self._done[stage] = {int(name.removesuffix(".json")) for name in found if name.endswith(".json")}
        return self._done[stage]

    def path(self, stage: str, number: int) -> Path:
        """Returns the file that records a chunk of a stage."""
        return self.out / RECORDS / stage / f"{number:06d}.json"

    def write(self, stage: str, number: int, rows: Mapping[str, Row]) -> None:
        """Records that a stage has finished a chunk, with what it found out about each photo by name."""
        lines = ",\n".join(f"{json.dumps(name, ensure_ascii=False)}: {json.dumps(row)}" for name, row in rows.items())
        self.write_file(self.path(stage, number), f"{{\n{lines}\n}}\n".encode())
        self.done(stage).add(number)

    def read(self, stage: str, number: int) -> dict[str, Row]:
        """Returns the results of a stage for the photos of a chunk; none where the chunk is not finished.

        Raises:
            RunError: the file is damaged.
        """
        if number not in self.done(stage):
            return {}
        path = self.path(stage, number)
        return require_json(path, "remove it and run again", RunError)

    def failures(self, stage: str) -> Iterator[tuple[int, list[str]]]:
        """Yields the finished chunks with photos that could not be used or read then, and are there now."""
        for number in sorted(self.done(stage)):
            rows = self.read(stage, number)
            names = (name for name in self.chunks[number] if name in self.present)
            if bad := [name for name in names if name not in rows or "failure" in rows[name]]:
                yield number, bad

    def forget(self, stage: str, number: int) -> None:
        """Has a stage do a chunk again."""
        self.path(stage, number).unlink()
        self.done(stage).discard(number)
