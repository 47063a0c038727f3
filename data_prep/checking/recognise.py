"""Tells what a folder holds: a built dataset, prepared folders, one's own CSV, or an authors' layout."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deskpro_jax.data.build import manifest, prepared
from deskpro_jax.data.build.listing import FOLDER
from deskpro_jax.data.build.sources import files_below
from deskpro_jax.data.datasets import layouts as authors
from deskpro_jax.data.datasets import naming, sizes
from deskpro_jax.data.load.dataset import BUILDER_NAME
from deskpro_jax.errors import InputError, MissingInputError

BUILT, PREPARED, MANIFEST, AUTHORS = "built", "prepared folders", "manifest", "authors' layout"
_SAMPLE = 200  # names that a guess looks at in each folder
_SYNTHETIC = "synthetic_"


class Recognised(NamedTuple):
    """What a folder holds.

    Attributes:
      dataset: One of `deskpro_jax.data.load.dataset.NAMES`.
      layout: One of BUILT, PREPARED, MANIFEST, AUTHORS.
      folder: Where it is: of a built dataset the folder with its records, else as given.
      guessed: What the dataset was guessed from, "" when it was given or says so itself.
    """

    dataset: str
    layout: str
    folder: Path
    guessed: str = ""


def recognise(folder: Path, dataset: str | None = None) -> Recognised:
    """Recognises a folder.

    Args:
      folder: The folder, or the CSV of a dataset of one's own.
      dataset: Which dataset it is, one of `deskpro_jax.data.load.dataset.NAMES`; None guesses.

    Returns:
      What it holds.

    Raises:
      MissingInputError: If there is no such folder.
      InputError: If it holds nothing that is known, another dataset than `dataset`, or several.
    """
    if not folder.exists():
        raise MissingInputError(f"{folder} is not there: correct the path")
    built = _built(folder) if folder.is_dir() else []
    if dataset is not None:
        built = [found for found in built if found[0] == dataset] or built[:1]
    if len(built) > 1:
        names = ", ".join(name for name, _ in built)
        raise InputError(f"{folder} holds several built datasets ({names}): name one with --dataset, or its folder")
    if built:
        name, place = built[0]
        if dataset not in (None, name):
            raise InputError(f"{place} holds the built dataset {name}, not {dataset}: correct --dataset or the folder")
        return Recognised(name, BUILT, place)
    if folder.is_file() or dataset == FOLDER:
        if folder.is_file() and dataset not in (None, FOLDER):
            raise InputError(f"{folder} is a file, which only the dataset {FOLDER} is described by: give the folder")
        return Recognised(FOLDER, MANIFEST, folder)
    if prepared.is_prepared(folder):
        name, guessed = (dataset, "") if dataset else _guess_prepared(folder)
        return Recognised(name, PREPARED, folder, guessed)
    if dataset is not None:
        return Recognised(dataset, PREPARED if dataset.startswith(_SYNTHETIC) else AUTHORS, folder)
    if (folder / manifest.MANIFEST).is_file():
        return Recognised(FOLDER, MANIFEST, folder)
    guess = _guess_authors(folder)
    if guess is not None:
        return Recognised(guess[0], AUTHORS, folder, guess[1])
    if any(folder.glob("*.csv")):
        return Recognised(FOLDER, MANIFEST, folder)
    inside = ", ".join(sorted(file.name for file in folder.iterdir())[:8]) or "nothing"
    layouts = "".join(f"\n  {name}: {authors.expected_folders(name)}" for name in authors.LAYOUTS)
    raise InputError(
        f"{folder} holds {inside}; expected a built dataset, prepared folders ({'/, '.join(naming.TREES)}/), a "
        f"{manifest.MANIFEST}, or a dataset as its authors distribute it:{layouts}\n"
        "Give the folder that holds these, or say with --dataset which one it is"
    )


def _built(folder: Path) -> list[tuple[str, Path]]:
    """Returns name and folder of the built datasets in or below a folder of any level of TFDS."""
    found = []
    for pattern in ("", "*", "*/*", f"{BUILDER_NAME}/*/*"):
        for file in sorted(folder.glob(f"{pattern}/dataset_info.json" if pattern else "dataset_info.json")):
            try:
                described = json.loads(file.read_text(encoding="utf-8"))
            except (ValueError, OSError) as error:
                raise InputError(f"{file} is damaged ({error}): build the dataset again") from error
            if described.get("name") == BUILDER_NAME and (file.parent / "metadata.json").is_file():
                found.append((str(described.get("configName")), file.parent))
        if found:
            break
    return found


def _guess_prepared(folder: Path) -> tuple[str, str]:
    """Returns which dataset prepared folders hold, and what tells it."""
    size = prepared.origin(folder).get("size")
    if size is not None:
        return f"{_SYNTHETIC}{size}", ""
    names: dict[str, list[tuple[int, int]]] = {}
    cameras: dict[str, set[int]] = {}
    for split, place in naming.FOLDERS.items():
        for name, _ in files_below(folder / naming.TREES[0] / place):
            for dataset in ("celeb", "celeb_light"):
                match = re.fullmatch(naming.names_of(dataset).pattern, name.rpartition(".")[0])
                if match:
                    names.setdefault(dataset, []).append((int(match[1]), int(match[2])))
                    cameras.setdefault(split, set()).add(int(match[2]))
    if not names:
        raise InputError(
            f"{folder} holds prepared folders, but no name in {naming.TREES[0]}/ is one of "
            f"{naming.names_of('celeb').expected} or {naming.names_of('celeb_light').expected}: correct the names, or "
            "say with --dataset which dataset it is"
        )
    if len(names.get("celeb_light", ())) > len(names.get("celeb", ())):
        return "celeb_light", "from the names"
    if len(set().union(*cameras.values())) <= 3 and len(cameras.get("gallery", ())) == 1:
        return "prcc", "from the names and the gallery's one camera"
    return "celeb", "from the names"


def _guess_authors(folder: Path) -> tuple[str, str] | None:
    """Returns which dataset a folder holds as its authors distribute it, and what tells it; None if none."""
    fits: dict[str, int] = {}
    for name, layout in authors.LAYOUTS.items():
        for top in layout.tops:
            places = [place for place in layout.places if any(_names(folder / top, place))]
            fits[name] = max(fits.get(name, 0), len(places))
    best = max(fits.values())
    names = [name for name, count in fits.items() if count == best]
    if not best:
        return None
    if len(names) == 1:
        return names[0], "from folders and names"
    # Celeb-reID and Celeb-reID-light are laid out alike.
    own = " ".join(folder.absolute().parts[-2:]).lower()
    if "light" in own or "celeb" in own:
        return "celeb_light" if "light" in own else "celeb", "from folders and names, its own name among them"
    images = sum(sum(1 for _ in files_below(folder / place.folder)) for place in authors.LAYOUTS["celeb"].places)
    light = sum(size.images for size in sizes.published("celeb_light"))
    name, other = ("celeb_light", "celeb") if light / 2 < images < 1.5 * light else ("celeb", "celeb_light")
    return name, f"from folders, names and its {images:,} images; {other} is laid out alike"


def _names(root: Path, place: authors.Place) -> Iterator[str]:
    """Yields those of the first names in a place that are as expected there."""
    listed = files_below(root / place.folder, 1 + place.pattern.count("/"))
    for path, _ in itertools.islice(listed, _SAMPLE):
        if re.fullmatch(place.pattern, path.rpartition(".")[0]):
            yield path
