"""Finds the configuration that `--config` names: a file of the user's, or one that is installed with the package."""

from __future__ import annotations

from pathlib import Path

from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.errors import MissingInputError

# In a checkout this is a link to the folder configs/ beside the package.
FOLDER = Path(__file__).parent.parent / "configs"
_PARTS = ("__init__", "base", "small", "variants")  # modules that configurations are made of


def names() -> tuple[str, ...]:
    """Returns the names of the configurations that are installed."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in _PARTS))


def find_config(path_or_name: str) -> str:
    """Finds a configuration.

    A path to a file that exists is that file. A bare name (`celeb`), and a path `configs/NAME.py` that does not exist,
    are the configuration of that name that is installed with the package.

    Args:
        path_or_name: the path or name, optionally with ":variant".

    Returns:
        The path of the file, with the variant.

    Raises:
        MissingInputError: there is no such file or configuration; near matches are named.
    """
    path, colon, variant = path_or_name.partition(":")
    if Path(path).is_file():
        return path_or_name
    parts = Path(path).parts
    name = parts[-1].removesuffix(".py") if parts else ""
    if name in (*names(), "base") and parts[:-1] in ((), ("configs",)):
        return f"{FOLDER / name}.py{colon}{variant}"
    hint = did_you_mean(name, names()) or f"installed are {', '.join(names())}."
    raise MissingInputError(f"--config {path or '(empty)'}: there is no such file, and no configuration; {hint}")
