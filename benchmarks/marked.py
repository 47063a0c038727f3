"""Text of a page that a command writes, between the lines `<!-- figures: NAME -->` and `<!-- end -->`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.storage.files import require_json

_BLOCK = re.compile(r"^<!-- figures: (?P<name>.+?) -->\n(?P<text>.*?)^<!-- end -->$", re.M | re.S)
_MARKER = re.compile(r"^<!-- (?:figures: .+?|end) -->$", re.M)


def blocks(text: str, where: str) -> dict[str, str]:
    """Returns the text between the markers of a page, by name.

    Args:
        text: of the page.
        where: its name, for errors.

    Raises:
        InputError: a block is not closed, or two have one name.
    """
    matches = [match.groupdict() for match in _BLOCK.finditer(text)]
    names = [block["name"] for block in matches]
    inside = any(_MARKER.search(block["text"]) for block in matches)
    if inside or len(_MARKER.findall(text)) != 2 * len(matches):
        raise InputError(f"{where}: after each '<!-- figures: NAME -->' a line '<!-- end -->' has to follow.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise InputError(f"{where}: two blocks are called {twice[0]!r}; one of them is enough.")
    return {block["name"]: block["text"] for block in matches}


def replace(text: str, new: Mapping[str, str]) -> str:
    """Returns a page with new text in those of its blocks that are named."""

    def block(match: re.Match[str]) -> str:
        name = match["name"]
        inner = f"\n{new[name].strip()}\n\n" if name in new else match["text"]
        return f"<!-- figures: {name} -->\n{inner}<!-- end -->"

    return _BLOCK.sub(block, text)


def read(path: Path) -> dict[str, str]:
    """Returns the blocks of a Markdown page or of a notebook's text.

    Raises:
        InputError: a block is not closed.
        MissingInputError: there is no such page.
    """
    if not path.is_file():
        raise MissingInputError(f"no page {path}: give the folder that holds README.md and docs.")
    if path.suffix == ".ipynb":
        return {
            name: text for cell in _texts(_notebook(path)) for name, text in blocks(_source(cell), str(path)).items()
        }
    return blocks(path.read_text(encoding="utf-8"), str(path))


def written(path: Path, new: Mapping[str, str]) -> str:
    """Returns the content of a page or a notebook with new text in those of its blocks that are named."""
    if path.suffix != ".ipynb":
        return replace(path.read_text(encoding="utf-8"), new)
    notebook = _notebook(path)
    for cell in _texts(notebook):
        cell["source"] = replace(_source(cell), new).splitlines(keepends=True)
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


def _notebook(path: Path) -> Any:
    return require_json(path)


def _texts(notebook: Any) -> list[Any]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"]


def _source(cell: Any) -> str:
    return "".join(cell["source"])
