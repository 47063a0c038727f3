"""The shell commands in README and docs, one by one, each with where it stands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import runs

BLOCK = re.compile(r"^```(?:bash|sh|shell|console)\n(.*?)^```", re.M | re.S)
_OPTIONAL = re.compile(r"\[(--[^\]]*)\]")  # [--flag VALUE] in a synopsis
_ENDS = ("&&", "||", ";", "|", "&")
_REDIRECTS = (">", ">>", "2>", "2>&1", "<")


class Documented(NamedTuple):
    """A command of the documentation.

    Attributes:
        page: the file, relative to the checkout.
        line: its first line in the page.
        words: as the shell would split them, without settings of environment variables before it.
    """

    page: str
    line: int
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.page}:{self.line}: {' '.join(self.words)}"


def pages() -> list[Path]:
    """Returns the pages that a reader sees."""
    found = [runs.ROOT / "README.md", runs.ROOT / "CONTRIBUTING.md"]
    return found + sorted(p for p in (runs.ROOT / "docs").rglob("*.md") if not {"_build", "_generated"} & set(p.parts))


def commands(path: Path) -> Iterator[Documented]:
    """Yields the commands in the shell blocks of a page."""
    text, page = path.read_text(encoding="utf-8"), path.relative_to(runs.ROOT).as_posix()
    for block in BLOCK.finditer(text):
        first = text.count("\n", 0, block.start(1)) + 1
        lines = block[1].replace("\\\n", " \0")  # a line that goes on keeps its number
        for number, line in enumerate(lines.split("\n")):
            at = first + number + lines[: sum(len(one) + 1 for one in lines.split("\n")[:number])].count("\0")
            for words in _split(shlex.split(_OPTIONAL.sub(r"\1", line.replace("\0", "")), comments=True)):
                yield Documented(page, at, words)


def _split(words: list[str]) -> Iterator[tuple[str, ...]]:
    command: list[str] = []
    for word in [*words, ";"]:
        if word not in _ENDS:
            command.append(word)
            continue
        while command and re.fullmatch(r"[A-Z_][A-Z0-9_]*=.*", command[0]):
            command.pop(0)
        end = next((place for place, one in enumerate(command) if one in _REDIRECTS), len(command))
        if command[:end]:
            yield tuple(command[:end])
        command = []


def module_of(words: tuple[str, ...]) -> tuple[str, list[str]] | None:
    """Returns the module of a Python command and its arguments, None for any other command."""
    if re.fullmatch(r"(.*/)?python[\d.]*", words[0]) and len(words) > 2 and words[1] == "-m":
        return words[2], list(words[3:])
    return None
