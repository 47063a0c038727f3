"""Recognises what a folder holds: a built dataset, prepared folders, one's own CSV, or an authors' layout."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deskpro_jax.data.build import manifest, prepared_folders
from deskpro_jax.data.build.image_sources import files_below
from deskpro_jax.data.datasets import celeb, celeb_light, folder, prcc
from deskpro_jax.data.datasets.find import NAMES, SPECS, find_dataset
from deskpro_jax.data.datasets.spec import DatasetSpec, PhotoFolder
from deskpro_jax.data.records import BUILDER_NAME
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.storage.files import require_json

BUILT, PREPARED, MANIFEST, AUTHORS = "built", "prepared folders", "manifest", "authors' layout"
_SAMPLE = 200  # names that a guess looks at in each folder


class RecognisedFolder(NamedTuple):
    """What a folder holds.

    Attributes:
        spec: the dataset.
        name: of the dataset, as for `find_dataset`.
        layout: one of BUILT, PREPARED, MANIFEST, AUTHORS.
        folder: where it is: of a built dataset the folder with its records, otherwise the folder that was given.
        guessed: what the dataset was guessed from, "" when it was given or is recorded in the folder.
    """

    spec: DatasetSpec
    name: str
    layout: str
    folder: Path
    guessed: str = ""


def recognise(path: Path, dataset: str | None = None) -> RecognisedFolder:
    """Recognises a folder.

    Args:
        path: the folder, or the CSV of a dataset of one's own.
        dataset: which dataset it is, as for `find_dataset`; None guesses.

    Returns:
        What it holds.

    Raises:
        MissingInputError: there is no such folder.
        InputError: it holds no known dataset, another one than `dataset`, or several.
    """
    if not path.exists():
        raise MissingInputError(f"{path} does not exist: correct the path")
    spec = find_dataset(dataset, "--dataset") if dataset is not None else None
    built = _built(path) if path.is_dir() else []
    if spec is not None:
        built = [entry for entry in built if entry[0] == spec.name] or built[:1]
    if len(built) > 1:
        names = ", ".join(name for name, _ in built)
        raise InputError(f"{path} holds several built datasets ({names}): name one with --dataset, or its folder")
    if built:
        name, records = built[0]
        if spec is None:
            dataset = _recorded_name(name, records)
            spec = find_dataset(dataset, "--dataset")
        if spec.name != name:
            raise InputError(
                f"{records} holds the built dataset {name}, not {spec.name}: correct --dataset or the folder"
            )
        return RecognisedFolder(spec, dataset or name, BUILT, records)
    if path.is_file() and spec is not None and not spec.manifest:
        raise InputError(
            f"{path} is a file, which describes datasets like {folder.SPEC.name} only: give the folder of {spec.name}"
        )
    if path.is_file() or (spec is not None and spec.manifest):
        return _known(spec or folder.SPEC, dataset, MANIFEST, path)
    if prepared_folders.is_prepared(path):
        if spec is not None:
            return _known(spec, dataset, PREPARED, path)
        spec, guessed = _guess_prepared(path)
        return RecognisedFolder(spec, spec.name, PREPARED, path, guessed)
    if spec is not None:
        return _known(spec, dataset, AUTHORS if spec.has_layout else PREPARED, path)
    if (path / manifest.MANIFEST).is_file():
        return _known(folder.SPEC, None, MANIFEST, path)
    guess = _guess_authors(path)
    if guess is not None:
        return RecognisedFolder(guess[0], guess[0].name, AUTHORS, path, guess[1])
    if any(path.glob("*.csv")):
        return _known(folder.SPEC, None, MANIFEST, path)
    inside = ", ".join(sorted(file.name for file in path.iterdir())[:8]) or "nothing"
    layouts = "".join(f"\n  {known.name}: {known.expected_folders()}" for known in SPECS if known.has_layout)
    raise InputError(
        f"{path} holds {inside}; expected a built dataset, prepared folders ({'/, '.join(prepared_folders.TREES)}/), a "
        f"{manifest.MANIFEST}, or a dataset as its authors distribute it:{layouts}\n"
        "Give the folder that holds these, or name the dataset with --dataset"
    )


def _known(spec: DatasetSpec, dataset: str | None, layout: str, path: Path) -> RecognisedFolder:
    return RecognisedFolder(spec, dataset or spec.name, layout, path)


def _recorded_name(name: str, records: Path) -> str:
    """Returns the name under which the spec of a built dataset is found: a fork's is recorded in its metadata."""
    try:
        recorded = require_json(records / "metadata.json").get("dataset")
    except (InputError, OSError):  # reported when the dataset is checked
        recorded = None
    if name not in NAMES and recorded is None:
        raise InputError(
            f"{records} holds the built dataset {name}, which is not one of the package: name it with "
            "--dataset MODULE:NAME"
        )
    return str(recorded or name)


def _built(path: Path) -> list[tuple[str, Path]]:
    """Returns name and folder of the built datasets in or below a folder of any level of TFDS."""
    built = []
    for pattern in ("", "*", "*/*", f"{BUILDER_NAME}/*/*"):
        for file in sorted(path.glob(f"{pattern}/dataset_info.json" if pattern else "dataset_info.json")):
            described = require_json(file, "build the dataset again")
            if described.get("name") == BUILDER_NAME and (file.parent / "metadata.json").is_file():
                built.append((str(described.get("configName")), file.parent))
        if built:
            break
    return built


def _guess_prepared(path: Path) -> tuple[DatasetSpec, str]:
    """Returns the dataset that prepared folders hold, and what it was guessed from."""
    size = prepared_folders.origin(path).get("size")
    for spec in SPECS:
        if size is not None and spec.synthetic_size == size:
            return spec, ""
    counts = {"celeb": 0, "celeb_light": 0}
    cameras: dict[str, set[int]] = {}
    top = prepared_folders.TREES[0]
    for split, name in prepared_folders.FOLDERS.items():
        for file, _ in files_below(path / top / name):
            for spec in (celeb.SPEC, celeb_light.SPEC):
                if match := re.fullmatch(spec.prepared.pattern, file.rpartition(".")[0]):
                    counts[spec.name] += 1
                    cameras.setdefault(split, set()).add(int(match[2]))
    if not any(counts.values()):
        raise InputError(
            f"{path} holds prepared folders, but no name in {top}/ is one of {celeb.SPEC.prepared.expected} or "
            f"{celeb_light.SPEC.prepared.expected}: correct the names, or name the dataset with --dataset"
        )
    if counts["celeb_light"] > counts["celeb"]:
        return celeb_light.SPEC, "from the names"
    if len(set().union(*cameras.values())) <= 3 and len(cameras.get("gallery", ())) == 1:
        return prcc.SPEC, "from the names and the gallery's one camera"
    return celeb.SPEC, "from the names"


def _guess_authors(path: Path) -> tuple[DatasetSpec, str] | None:
    """Returns the dataset whose authors' layout a folder has, and what it was guessed from; None if none."""
    fits: list[tuple[int, DatasetSpec]] = []
    for spec in SPECS:
        counts = [sum(any(_names(path / root, folder)) for folder in spec.folders) for root in spec.roots]
        counts += [sum((path / root / name).is_file() for name in spec.list_files) for root in spec.roots]
        fits.append((max(counts), spec))
    best = max(count for count, _ in fits)
    specs = [spec for count, spec in fits if count == best]
    if not best:
        return None
    if len(specs) == 1:
        return specs[0], "from folders and names"
    # Celeb-reID and Celeb-reID-light are laid out alike.
    own = " ".join(path.absolute().parts[-2:]).lower()
    if "light" in own or "celeb" in own:
        guess = celeb_light.SPEC if "light" in own else celeb.SPEC
        return guess, "from folders and names, its own name among them"
    images = sum(sum(1 for _ in files_below(path / photos.folder)) for photos in celeb.SPEC.folders)
    light = sum(size.images or 0 for size in celeb_light.SPEC.sizes)
    is_light = light / 2 < images < 1.5 * light
    guess, other = (celeb_light.SPEC, celeb.SPEC) if is_light else (celeb.SPEC, celeb_light.SPEC)
    return guess, f"from folders, names and its {images:,} images; {other.name} is laid out alike"


def _names(root: Path, folder: PhotoFolder) -> Iterator[str]:
    """Yields those of the first names in a folder that are as expected there."""
    listed = files_below(root / folder.folder, 1 + folder.pattern.count("/"))
    for name, _ in itertools.islice(listed, _SAMPLE):
        if re.fullmatch(folder.pattern, name.rpartition(".")[0]):
            yield name
