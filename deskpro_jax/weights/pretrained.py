"""Weights that come with the package: `pretrained:NAME` stands for one wherever a weights file is taken."""

from __future__ import annotations

import functools
from pathlib import Path

from absl import logging

from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.errors import InputError

PREFIX = "pretrained:"
FOLDER = Path(__file__).parents[1] / "pretrained"  # NAME.safetensors, and its model card NAME.md
_SUFFIX = ".safetensors"


def names() -> tuple[str, ...]:
    """Returns the names of the weights that come with the package."""
    return tuple(sorted(path.stem for path in FOLDER.glob(f"*{_SUFFIX}")))


def find_weights(source: str | Path) -> Path:
    """Returns the path of weights that a user names.

    Args:
        source: "pretrained:NAME" for weights that come with the package; anything else is a path, in which `~` is the
            home folder.

    Raises:
        InputError: no weights of that name come with the package; the message lists those that do.
    """
    text = str(source)
    if not text.startswith(PREFIX):
        return Path(source).expanduser()
    name = text.removeprefix(PREFIX)
    if name not in names():
        listed = ", ".join(PREFIX + known for known in names()) or "none"
        hint = did_you_mean(name, names())
        raise InputError(
            f"no weights {text} come with the package{f' ({hint})' if hint else ''}; the ones that do: {listed}."
        )
    return FOLDER / f"{name}{_SUFFIX}"


def name_of(path: Path) -> str:
    """Returns the name of a weights file or workdir in records and messages: "pretrained:NAME", or its last part."""
    return PREFIX + path.stem if path.parent == FOLDER and path.suffix == _SUFFIX else path.name


def warn_of_drawn_people(path: Path) -> None:
    """Logs, once in a process, what networks know that come with the package; nothing for other files."""
    if path.parent == FOLDER:
        _warn(name_of(path))


@functools.cache
def _warn(name: str) -> None:
    logging.warning("%s was trained on drawn people only: for trying things out, not for photos of people.", name)
