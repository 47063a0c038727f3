"""Resumable work on a long list of photos: parts of fixed ranges, shared by processes, joined when all are there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from deskpro_jax.config.fields import differences
from deskpro_jax.data.photo_tables import LABELS
from deskpro_jax.embedding.embedding_set import read_settings
from deskpro_jax.embedding.files import INDEX, Part, join_parts, label_types, names_of_part, write_part
from deskpro_jax.embedding.photo_list import Listed
from deskpro_jax.errors import InputError, RunError
from deskpro_jax.storage.files import move, require_json, write_json
from deskpro_jax.storage.locks import locked

_PROGRESS = ".progress"  # settings, the list of photos, and a record a part while there is work left
_SETTINGS, _PHOTOS = "settings.json", "photos.jsonl"
_FILES = (".parquet", ".npy")  # endings of an output that is one file


class Unreadable(NamedTuple):
    """A photo without an embedding."""

    image_id: str
    path: str
    reason: str


@dataclass(frozen=True)
class Summary:
    """What finished embeddings hold.

    Attributes:
        rows: embeddings.
        with_face: how many of them have a face; None where that was not counted now.
        unreadable: the photos that have none.
    """

    rows: int
    with_face: int | None
    unreadable: tuple[Unreadable, ...]


class Work:
    """The embedding of a list of photos into one file or folder.

    Attributes:
        settings: what decides the result, completed by what the list says of itself.
        count: photos in the list.
        with_face: photos in the list that have a face.
        ranges: first photo of each part, and the end.
    """

    def __init__(self, out: Path, form: str, size: int):
        """Names an output; nothing is written.

        Args:
            out: a folder for parts, or a file ending in .parquet or .npy that they are joined into.
            form: "parquet" or "npy".
            size: photos a part.

        Raises:
            InputError: the ending is that of another format, or the folder holds something else.
        """
        self._target = out if out.suffix in _FILES else None
        if self._target is not None and self._target.suffix != f".{form}":
            raise InputError(f"{out} and format {form} do not fit: change --out or --format.")
        if (self._target is None and out.is_file()) or (self._target is not None and out.is_dir()):
            raise InputError(f"{out} is there and is a {'file' if out.is_file() else 'folder'}: give another --out.")
        self._folder = out if self._target is None else out.with_name(f"{out.name}.parts")
        self._progress = self._folder / _PROGRESS
        self._form, self._size = form, size
        known = self._has_index() or self._progress.exists()
        ours = (".",) if self._target is None else (".", "part-")  # parts may be left of a removal that was killed
        if self._folder.is_dir() and not known and not all(p.name.startswith(ours) for p in self._folder.iterdir()):
            raise InputError(f"{self._folder} holds something else than embeddings: give a new or empty folder.")
        self.settings: dict[str, Any] = {}
        self.count = self.with_face = 0

    @property
    def ranges(self) -> list[int]:
        """The first photo of each part, and the end of the last."""
        return [*range(0, self.count, self._size), self.count]

    def begin(
        self, photos: Iterable[Listed], settings: Mapping[str, Any], process: int = 0, processes: int = 1
    ) -> list[int]:
        """Takes down the list, checks it and the settings against what is there, and takes this process's parts.

        Args:
            photos: the list.
            settings: what else decides the result, as JSON values.
            process: number of this process, from 0.
            processes: how many share the work, each with the same list and settings.

        Returns:
            Numbers of the parts to do: those of its share that are not there yet, or in which photos were unreadable
            before. None is left when the output is complete.

        Raises:
            InputError: the output was begun with other photos or settings.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        taken = self._folder / f".{_PHOTOS}.{os.getpid()}"
        try:
            listed = self._take_down(photos, taken)
            self.settings = {**settings, "labels": listed.pop("labels"), "part": self._size, "photos": listed}
            with self._locked():
                before = self._before()
                if before is not None and before != self.settings:
                    raise InputError(self._contradiction(before))
                if self._complete():
                    taken.unlink()
                    self._clear()
                    return []
                self._progress.mkdir(exist_ok=True)
                self._reopen()
                move(taken, self._progress / _PHOTOS)
                write_json(self._progress / _SETTINGS, self.settings)
                todo = [n for n in range(process, len(self.ranges) - 1, processes) if self._open(n)]
                for number in todo:  # without its record nobody takes the part for done meanwhile
                    self._record(number).unlink(missing_ok=True)
                return todo
        finally:
            taken.unlink(missing_ok=True)
            with contextlib.suppress(OSError):
                self._folder.rmdir()  # only where nothing was begun in it

    def _open(self, number: int) -> bool:
        record = self._record(number)
        return not record.exists() or bool(_read(record)["unreadable"])

    def _take_down(self, photos: Iterable[Listed], path: Path) -> dict[str, Any]:
        """Writes the list, so that every part means the same photos however the folder changes; returns what it is."""
        digest = hashlib.sha256()
        text: dict[str, bool] = {}
        with path.open("w", encoding="utf-8") as lines:
            for photo in photos:
                self.count += 1
                self.with_face += photo.face is not None
                labels = {name: getattr(photo, name) for name in LABELS}
                if photo.tracklet is None:  # lists without tracklets are what they were to earlier versions
                    del labels["tracklet"]
                for name, label in labels.items():
                    text[name] = text.get(name, False) or isinstance(label, str)
                # Not the paths: the same photos may be named from another folder.
                digest.update(json.dumps([photo.image_id, photo.face is not None, *labels.values()]).encode())
                lines.write(json.dumps(photo) + "\n")
        return {
            "count": self.count,
            "with_face": self.with_face,
            "sha256": digest.hexdigest(),
            "labels": label_types(text),
        }

    def _before(self) -> dict[str, Any] | None:
        """Returns the settings of what exists already, None where nothing does."""
        if (self._progress / _SETTINGS).exists():
            return _read(self._progress / _SETTINGS)
        for place in (self._folder, self._target):
            settings = None if place is None else read_settings(place)
            if settings is not None:
                return settings
        if self._target is not None and self._target.exists():
            raise InputError(
                f"{self._target} already exists and was not written by this command: choose another --out."
            )
        return None

    def _contradiction(self, before: Mapping[str, Any]) -> str:
        out, listed = self._target or self._folder, differences(before, self.settings)
        return f"{out} was begun with other photos or settings:{listed}\nGive another --out, or these as they were."

    def _complete(self) -> bool:
        if self._target is None:
            return self._has_index() and not self.summary().unreadable
        begun = (self._progress / _SETTINGS).exists() or self._has_index()
        return not begun and read_settings(self._target) is not None

    def _has_index(self) -> bool:
        return (self._folder / INDEX).exists()

    def _reopen(self) -> None:
        """Goes on with finished parts among which there were unreadable photos: perhaps these have been replaced."""
        if not self._has_index():
            return
        for number, record in enumerate(_read(self._folder / INDEX)["shards"]):
            write_json(self._record(number), record)
        (self._folder / INDEX).unlink()

    def photos(self, parts: Sequence[int]) -> Iterator[Listed]:
        """Yields the photos of some parts, in order."""
        numbers, ranges = set(parts), self.ranges
        with (self._progress / _PHOTOS).open(encoding="utf-8") as lines:
            for number in range(len(ranges) - 1):
                for _ in range(ranges[number + 1] - ranges[number]):
                    line = next(lines)
                    if number in numbers:
                        yield Listed(*json.loads(line))

    def write(self, number: int, part: Part, unreadable: Sequence[Unreadable]) -> None:
        """Writes a part whole, and then its record, which makes it count."""
        ranges = self.ranges
        base = f"part-{number:05d}-of-{len(ranges) - 1:05d}"
        write_part(self._progress, base, self._form, part, self.settings)
        names = names_of_part(base, self._form)
        for name in names:
            move(self._progress / name, self._folder / name)
        record = {
            "file": names[0],
            "first": ranges[number],
            "count": ranges[number + 1] - ranges[number],
            "rows": len(part.photos),
            "with_face": int(part.has_face.sum()),
            "unreadable": list(unreadable),
        }
        write_json(self._record(number), record)

    def finish(self) -> Summary | None:
        """Joins the parts once all are there.

        Returns:
            What the result holds, None while other processes still have parts to do.

        Raises:
            RunError: another process removed what this one needs.
        """
        if not (self._progress / _SETTINGS).exists():  # complete before, or another process was the last
            return self.summary()
        with self._locked():
            if not (self._progress / _SETTINGS).exists():
                return self.summary()
            numbers = range(len(self.ranges) - 1)
            if not all(self._record(n).exists() for n in numbers):
                return None
            shards = [_read(self._record(n)) for n in numbers]
            summary = _sum(shards)
            if self._target is not None:
                files = [self._folder / shard["file"] for shard in shards]
                join_parts(files, self._target, self._form, self.settings, self._progress)
            if self._target is None or summary.unreadable:  # the parts stay, so that the gaps alone are done again
                write_json(self._folder / INDEX, {"settings": self.settings, "shards": shards})
            self._clear()
            return summary

    def summary(self) -> Summary:
        """Returns what the finished result holds."""
        if self._has_index():
            return _sum(_read(self._folder / INDEX)["shards"])
        if self._target is not None and self._target.exists():  # joined without a gap, or the parts would be there
            return Summary(self.count, None, ())
        raise RunError(f"{self._folder} was removed while this process was at work: run the command again.")

    def _record(self, number: int) -> Path:
        return self._progress / f"{number:05d}.json"

    def _clear(self) -> None:
        """Removes what only unfinished work needs; without its settings it counts as finished from the first moment."""
        (self._progress / _SETTINGS).unlink(missing_ok=True)
        parts_stay = self._target is None or self._has_index()
        shutil.rmtree(self._progress if parts_stay else self._folder, ignore_errors=True)

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        """Keeps other processes at the same output out for a moment; a killed one lets go by itself."""
        return locked(self._folder, seconds=math.inf)


def _read(path: Path) -> dict[str, Any]:
    return require_json(path, "remove the unfinished output and start again", RunError)


def _sum(shards: Iterable[Mapping[str, Any]]) -> Summary:
    shards = list(shards)
    unreadable = tuple(Unreadable(*item) for shard in shards for item in shard["unreadable"])
    return Summary(sum(s["rows"] for s in shards), sum(s["with_face"] for s in shards), unreadable)
