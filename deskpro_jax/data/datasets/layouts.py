"""The layouts in which the authors of datasets distribute them: folders, file names, and what each name says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from deskpro_jax.data.build.sources import SUFFIXES, Finding, files_below
from deskpro_jax.errors import InputError, MissingInputError

LETTERS = "ABC"  # PRCC's cameras; C sees other clothes than A and B


class Place(NamedTuple):
    """A folder of images.

    Attributes:
      split: Where its images belong.
      folder: Below the dataset's root.
      pattern: Of a path below the folder, without its suffix. Groups: identity, camera (or letter), frame, clothes.
      expected: The same for people.
      image_id: How the groups make the name of an image.
    """

    split: str
    folder: str
    pattern: str
    expected: str
    image_id: str = "{name}"


class Layout(NamedTuple):
    """How one dataset is laid out.

    Attributes:
      origin: Where to get it.
      places: Its folders.
      camera: What the camera numbers mean.
      clothes: What the clothes numbers mean.
      extra: Folders that are used on demand alone.
      tops: Folders of the distributed archive that the places may be in; "" is the root itself.
    """

    origin: str
    places: tuple[Place, ...]
    camera: str
    clothes: str
    extra: tuple[Place, ...] = ()
    tops: tuple[str, ...] = ("",)


class Photo(NamedTuple):
    """A photo and what its name says.

    Attributes:
      split: One of `schema.SPLITS`.
      image_id: Unique within the split.
      identity: Number of the person.
      camera: Number of the camera.
      clothes: Number of the outfit, -1 when not known.
      file: The photo.
      path: Relative to the folder that was given, without the suffix.
      frame: The numbers that tell images of one person and camera apart.
    """

    split: str
    image_id: str
    identity: int
    camera: int
    clothes: int
    file: Path
    path: str
    frame: tuple[int, ...]


def _flat(pattern: str, expected: str, gallery: str = "gallery") -> tuple[Place, ...]:
    folders = {"train": "train", "query": "query", "gallery": gallery}
    return tuple(Place(split, folder, f"(?P<name>{pattern})", expected) for split, folder in folders.items())


def _prcc(split: str, folder: str, pattern: str, expected: str, image_id: str = "") -> Place:
    return Place(split, folder, pattern, expected, image_id or "{identity}_{letter}_{frame}")


_CELEB = "https://github.com/Huang-3/Celeb-reID"
_CELEB_NAMES = "x_y_z with x the identity and y the image number, as in 7_10_0"
_IMAGE_NUMBER = "the dataset has no cameras; the whole image number y stands in for one"
_PRCC_TRAIN = (r"(?P<identity>\d{1,9})/(?P<letter>[ABC])_(?P<frame>[\w-]+)", "PID/A_NAME, PID/B_NAME or PID/C_NAME")
_PRCC_TEST = r"(?P<identity>\d{1,9})/(?P<frame>[\w-]+)"
LAYOUTS: dict[str, Layout] = {
    "celeb": Layout(
        _CELEB,
        _flat(r"(?P<identity>\d{1,9})_(?P<camera>\d{1,9})_(?P<frame>\d+)", _CELEB_NAMES),
        camera=_IMAGE_NUMBER,
        clothes="not known",
    ),
    "celeb_light": Layout(
        _CELEB,
        _flat(r"(?P<identity>\d{1,9})_(?P<camera>(?P<clothes>\d{1,9}))_(?P<frame>\d+)", _CELEB_NAMES),
        camera=_IMAGE_NUMBER,
        clothes="the image number: every image of a person shows other clothes",
    ),
    "prcc": Layout(
        "https://www.isee-ai.cn/~yangqize/clothing.html",
        (
            _prcc("train", "train", *_PRCC_TRAIN),
            _prcc("query", "test", f"(?P<letter>[BC])/{_PRCC_TEST}", "B/PID/NAME or C/PID/NAME"),
            _prcc("gallery", "test", f"(?P<letter>A)/{_PRCC_TEST}", "A/PID/NAME"),
        ),
        camera="0, 1, 2 for A, B, C",
        clothes="0 in A and B, 1 in C; to be compared within one identity",
        extra=(_prcc("train", "val", *_PRCC_TRAIN, image_id="val_{identity}_{letter}_{frame}"),),
        tops=("rgb", ""),
    ),
    "ltcc": Layout(
        "https://naiq.github.io/LTCC_Perosn_ReID.html",
        _flat(
            r"(?P<identity>\d{1,9})_(?P<clothes>\d{1,9})_c(?P<camera>\d{1,9})_(?P<frame>[\w-]+)",
            "PID_CLOTHES_cCAM_FRAME, as in 001_1_c4_015833",
            gallery="test",
        ),
        camera="the number after c",
        clothes="the second number; to be compared within one identity",
    ),
    "vc_clothes": Layout(
        "https://wanfb.github.io/dataset.html",
        _flat(
            r"(?P<identity>\d{1,9})-(?P<camera>\d{1,9})-(?P<clothes>\d{1,9})-(?P<frame>\d+)",
            "PID-CAM-CLOTHES-N, as in 0001-02-01-04",
        ),
        camera="the second number; 2 and 3 see the same clothes, 3 and 4 others",
        clothes="the third number; to be compared within one identity",
    ),
}


def list_photos(dataset: str, raw_dir: Path, with_val: bool = False) -> tuple[list[Photo], list[Finding]]:
    """Lists the photos of a dataset as its authors distribute it.

    Args:
      dataset: A key of `LAYOUTS`.
      raw_dir: The folder that holds the authors' folders.
      with_val: Adds the images of a validation split to train (PRCC).

    Returns:
      The photos in the order of splits, folders and names, and the files whose names say nothing.

    Raises:
      MissingInputError: If a folder is missing.
      InputError: If a split has no images, or there is no validation split.
    """
    layout = LAYOUTS[dataset]
    if with_val and not layout.extra:
        raise InputError(f"dataset {dataset} has no validation images to add to train: leave --with-val out")
    places = (*layout.places, *(layout.extra if with_val else ()))
    root = _root(dataset, raw_dir, places)
    found: dict[str, dict[str, Photo]] = {place.split: {} for place in places}
    findings: list[Finding] = []
    for folder in dict.fromkeys(place.folder for place in places):
        for item in _list_folder(root / folder, [place for place in places if place.folder == folder], raw_dir):
            if isinstance(item, Finding):
                findings.append(item)
            elif (first := found[item.split].setdefault(item.image_id, item)) is not item:
                findings.append(Finding(str(item.file), f": the same image as {first.file}: remove one"))
    for split, photos in found.items():
        if not photos:
            folders = " and ".join(dict.fromkeys(str(root / place.folder) for place in places if place.split == split))
            wrong = f" ({len(findings)} files have other names, first {findings[0].file})" if findings else ""
            raise InputError(
                f"{folders} holds no images of split {split}, named {_expected(split, places)}{wrong}: "
                f"put the {split} images of {dataset} there"
            )
    return [photo for photos in found.values() for photo in photos.values()], findings


def expected_folders(dataset: str) -> str:
    """Returns the folders that a dataset's authors use, in words."""
    layout = LAYOUTS[dataset]
    top = f"{layout.tops[0]}/" if layout.tops[0] else ""
    return ", ".join(dict.fromkeys(f"{top}{place.folder}/" for place in layout.places))


def left_out(dataset: str, raw_dir: Path) -> list[str]:
    """Returns a line on each folder of images that is used on demand alone and was not asked for."""
    layout = LAYOUTS[dataset]
    notes = []
    for place in layout.extra:
        for top in layout.tops:
            count = sum(1 for _ in files_below(raw_dir / top / place.folder, 1 + place.pattern.count("/")))
            if count:
                notes.append(f"{raw_dir / top / place.folder}: {count:,} images left out (--with-val adds them)")
                break
    return notes


def _root(dataset: str, raw_dir: Path, places: tuple[Place, ...]) -> Path:
    """Returns the folder that holds the places, or says what is missing and where to get it."""
    layout = LAYOUTS[dataset]
    folders = tuple(dict.fromkeys(place.folder for place in places))
    for top in layout.tops:
        if all((raw_dir / top / folder).is_dir() for folder in folders):
            return raw_dir / top
    present = [top for top in layout.tops if any((raw_dir / top / folder).is_dir() for folder in folders)]
    root = raw_dir / (present[0] if present else layout.tops[0])
    missing = next(folder for folder in folders if not (root / folder).is_dir())
    near = ""
    if raw_dir.is_dir() and not present:
        inside = sorted(child for child in raw_dir.iterdir() if child.is_dir())
        fits = [child for child in inside for top in layout.tops if (child / top / folders[0]).is_dir()]
        names = ", ".join(child.name for child in inside[:8]) or "no folders"
        near = f" Did you mean {fits[0]}?" if fits else f" {raw_dir} has {names}."
    raise MissingInputError(
        f"dataset {dataset}: folder {root / missing} is missing.{near} Get the photos ({layout.origin}) and set "
        f"data.raw_dir (--raw) to the folder with {expected_folders(dataset)} in it"
    )


def _expected(split: str, places: tuple[Place, ...]) -> str:
    return " or ".join(dict.fromkeys(place.expected for place in places if place.split == split))


def _list_folder(folder: Path, places: list[Place], raw_dir: Path) -> Iterator[Photo | Finding]:
    """Yields what is in a folder that one or several places share."""
    for path, file in files_below(folder, 1 + places[0].pattern.count("/")):
        stem, dot, suffix = path.rpartition(".")
        matches = [(place, match) for place in places if (match := re.fullmatch(place.pattern, stem))]
        if file.is_dir() or not matches or f"{dot}{suffix}".lower() not in SUFFIXES:
            what = "this is a folder" if file.is_dir() else "the name does not match"
            expected = " or ".join(place.expected for place in places)
            suffixes = ", ".join(SUFFIXES)
            yield Finding(str(file), f": {what}, expected {expected} with one of {suffixes}: rename or remove it")
            continue
        place, match = matches[0]
        groups = match.groupdict()
        if "letter" in groups:
            camera, clothes = LETTERS.index(groups["letter"]), int(groups["letter"] == "C")
        else:
            camera, clothes = int(groups["camera"]), int(groups.get("clothes", -1))
        yield Photo(
            split=place.split,
            image_id=place.image_id.format(**groups),
            identity=int(groups["identity"]),
            camera=camera,
            clothes=clothes,
            file=file,
            path=file.relative_to(raw_dir).with_suffix("").as_posix(),
            frame=tuple(map(int, re.findall(r"\d+", groups["frame"]))),
        )
