"""The matches of a search, written as a table, CSV or JSON."""

from __future__ import annotations

import contextlib
import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import rich.console
import rich.table

from deskpro_jax.storage.files import atomic_path

FORMATS = ("table", "csv", "json")
_HEADS = (
    "query",
    "rank",
    "image_id",
    "similarity",
    "compared",
    "same_person",
    "identity",
    "camera",
    "clothes",
    "image",
)
_SUFFIXES = {".csv": "csv", ".json": "json"}


@dataclass(frozen=True)
class Match:
    """A gallery image in the result of a search.

    Attributes:
        rank: from 1, the most similar.
        similarity: of query and gallery image, in [-1, 1].
        compared: the streams that both have: "face and body", or "body" where one of them shows no face.
        same_person: whether the similarity reaches the verification threshold; None without one.
        image_id: its name.
        image: its path.
        identity: its person, None where unknown; likewise camera and clothes.
    """

    rank: int
    similarity: float
    compared: str
    same_person: bool | None
    image_id: str
    image: str | None
    identity: Any
    camera: Any
    clothes: Any


@dataclass(frozen=True)
class Query:
    """A query, what it shows ("face and body", "body", "nothing"), and its matches."""

    query: str
    shows: str
    matches: tuple[Match, ...]


def write_matches(queries: Iterable[Query], out: Path | None = None, form: str | None = None) -> None:
    """Writes matches as they come in.

    Args:
        queries: the queries with their matches.
        out: the file, written atomically; None for standard output.
        form: "table", "csv" or "json"; None chooses by the file's ending, else a table.
    """
    form = form or _SUFFIXES.get("" if out is None else out.suffix.lower(), "table")
    with _output(out) as file:
        {"table": _write_table, "csv": _write_csv, "json": _write_json}[form](queries, file)


@contextlib.contextmanager
def _output(out: Path | None) -> Iterator[IO[str]]:
    if out is None:
        yield sys.stdout
        return
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        yield file


def _write_json(queries: Iterable[Query], file: IO[str]) -> None:
    # An array that is written one query after the other: there may be more than fit into memory.
    file.write("[")
    for number, query in enumerate(queries):
        file.write(",\n" if number else "\n")
        file.write(json.dumps(asdict(query), ensure_ascii=False))
    file.write("\n]\n")


def _write_csv(queries: Iterable[Query], file: IO[str]) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(_HEADS)
    for query in queries:
        for match in query.matches:
            values = {"query": query.query, **asdict(match)}
            values["same_person"] = _yes(match.same_person)
            writer.writerow(["" if values[head] is None else values[head] for head in _HEADS])


def _write_table(queries: Iterable[Query], file: IO[str]) -> None:
    for query in queries:
        table = rich.table.Table(title=f"{query.query} (shows {query.shows})", title_justify="left")
        heads = [head for head in _HEADS[1:-1] if any(_value(match, head) is not None for match in query.matches)]
        for head in heads:
            table.add_column(head, justify="right" if head in ("rank", "similarity") else "left", no_wrap=True)
        for match in query.matches:
            values = [_value(match, head) for head in heads]
            table.add_row(*(_cell(value) for value in values))
        console = rich.console.Console(file=file, markup=False, highlight=False)
        measured = console.measure(table, options=console.options.update(max_width=10_000))
        console.width = max(console.width, measured.maximum)
        if query.matches:
            console.print(table)
        else:
            console.print(f"{query.query} (shows {query.shows}): nothing in the gallery can be compared with it")


def _value(match: Match, head: str) -> Any:
    return _yes(match.same_person) or None if head == "same_person" else getattr(match, head)


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _yes(answer: bool | None) -> str:
    return "" if answer is None else "yes" if answer else "no"
