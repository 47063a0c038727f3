"""What is known about a dataset: where to get it, how its files are named, its published sizes and its protocols."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import NamedTuple

from deskpro_jax.data.datasets.lists import PhotoReader
from deskpro_jax.data.datasets.protocols import Protocol
from deskpro_jax.errors import InputError


class PhotoFolder(NamedTuple):
    """A folder of photos in a dataset as its authors distribute it.

    Attributes:
        split: one of `schema.SPLITS`.
        folder: path below the dataset's root.
        pattern: regular expression of a photo's path below the folder, without the suffix. Named groups: identity,
            frame, camera (or letter) where there are cameras, and clothes where outfits are known: numbers, or labels
            that are numbered (`outfits.number_outfits`).
        expected: the pattern in words, for errors.
        image_id: how the groups of the pattern are joined to the name of an image.
    """

    split: str
    folder: str
    pattern: str
    expected: str
    image_id: str = "{name}"


class FileNames(NamedTuple):
    """How a dataset's files are named in prepared folders.

    Attributes:
        pattern: regular expression of a name without its suffix; its groups are identity, camera and frame.
        expected: the pattern in words, for errors.
        cameras_from_gallery: whether cameras are counted from the gallery's lowest number (some copies of PRCC number
            them from 1) instead of from 0.
    """

    pattern: str
    expected: str
    cameras_from_gallery: bool = False


class Size(NamedTuple):
    """The published size of a split, or of the images of one camera in it.

    Attributes:
        split: one of `schema.SPLITS`, or "test" for query and gallery together.
        images: number of images; None where it was not published.
        identities: number of identities; None where it was not published.
        camera: the camera counted; None for all.
        name: title in messages; "" for the split's own name.
        tracklets: number of tracklets; None where it was not published.
    """

    split: str
    images: int | None
    identities: int | None = None
    camera: int | None = None
    name: str = ""
    tracklets: int | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that are counted together."""
        return ("query", "gallery") if self.split == "test" else (self.split,)


WITH_C = FileNames(r"(\d+)_c(\d+)_([\w-]+)", "PID_cCAM_FRAME, as in 0007_c2_000013")
WITHOUT_C = FileNames(r"(\d+)_(\d+)_([\w-]+)", "PID_CAM_FRAME, as in 7_2_13")


@dataclasses.dataclass(frozen=True)
class DatasetSpec:
    """Everything that building, checking, evaluating and reporting a dataset need to know about it.

    A spec with `folders` or `read_photos` is built from the authors' layout (or from prepared folders), one with
    `manifest` from a CSV, one with `synthetic_size` is drawn, and one with none of these is built from prepared folders
    only.

    Attributes:
        name: names the folder of the built dataset: lower-case letters, digits and _.
        protocols: under which the dataset is reported, at least one.
        origin: where to get the photos.
        camera: meaning of the camera labels.
        clothes: meaning of the clothes labels.
        folders: folders of the authors' layout.
        validation_folders: folders that are added to train on demand only (--with-val).
        read_photos: reads the lists in which the authors name the photos; None where names say everything.
        list_files: these lists, below one of the `roots`.
        roots: folders of the distributed archive that `folders` may be in, the usual one first; "" is its top.
        letters: camera and clothes labels by the letter in a path, where the pattern has the group `letter`.
        prepared: names in prepared folders.
        sizes: published sizes; () where none are known.
        validation_images: published number of images in `validation_folders`.
        image_numbers: whether the camera label is a number of the image, unique within an identity.
        identities_across_splits: whether a number that train and test share means one person in both; otherwise each
            of them numbers its own people.
        manifest: whether the dataset is described by a CSV.
        synthetic_size: a size of `synthetic.generate.SIZES` to draw; "" for photographed datasets.
        versions: of the dataset, the one that is built first; older ones that exist are read.

    Raises:
        InputError: the name cannot name a folder, or there are no protocols or two of one name.
    """

    name: str
    protocols: tuple[Protocol, ...]
    origin: str
    camera: str = "not known"
    clothes: str = "not known"
    folders: tuple[PhotoFolder, ...] = ()
    validation_folders: tuple[PhotoFolder, ...] = ()
    read_photos: PhotoReader | None = None
    list_files: tuple[str, ...] = ()
    roots: tuple[str, ...] = ("",)
    letters: Mapping[str, tuple[int, int]] = dataclasses.field(default_factory=dict)
    prepared: FileNames = WITH_C
    sizes: tuple[Size, ...] = ()
    validation_images: int = 0
    image_numbers: bool = False
    identities_across_splits: bool = False
    manifest: bool = False
    synthetic_size: str = ""
    versions: tuple[str, ...] = ("1.0.0",)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise InputError(
                f"{self.name!r} is not a valid name of a dataset: use lower-case letters, digits and _, e.g. my_photos."
            )
        names = [protocol.name for protocol in self.protocols]
        if not names:
            raise InputError(f"dataset {self.name!r} has no protocols: give it at least one.")
        if len(set(names)) < len(names):
            raise InputError(f"dataset {self.name!r} has two protocols of one name ({', '.join(names)}): rename one.")

    def published_sizes(self, with_val: bool = False) -> tuple[Size, ...]:
        """Returns the published sizes, with the validation images in train where `with_val` is set."""
        more = self.validation_images if with_val else 0
        return tuple(
            size._replace(images=size.images + more) if size.split == "train" and size.images is not None else size
            for size in self.sizes
        )

    @property
    def has_layout(self) -> bool:
        """Whether its authors distribute it in a layout of their own that is known."""
        return bool(self.folders) or self.read_photos is not None

    @property
    def by_tracklet(self) -> bool:
        """Whether it is a video dataset: its protocols compare tracklets."""
        return all(protocol.by_tracklet for protocol in self.protocols)

    def expected_folders(self) -> str:
        """Returns the folders and lists of the authors' layout in words."""
        root = f"{self.roots[0]}/" if self.roots[0] else ""
        folders = [f"{root}{folder.folder}/" for folder in self.folders]
        return ", ".join(dict.fromkeys([*folders, *(f"{root}{name}" for name in self.list_files)]))


def split_folders(pattern: str, expected: str, gallery: str = "gallery") -> tuple[PhotoFolder, ...]:
    """Returns one folder for each split with the same names in all of them.

    Args:
        pattern: of the file names without their suffix; a whole name is the name of the image.
        expected: the pattern in words.
        gallery: name of the gallery's folder; those of train and query are called train and query.
    """
    folders = {"train": "train", "query": "query", "gallery": gallery}
    return tuple(PhotoFolder(split, folder, f"(?P<name>{pattern})", expected) for split, folder in folders.items())
