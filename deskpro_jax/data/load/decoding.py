"""Decodes the images of one example into a row of a batch, all of them cut to the same relative window."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

from deskpro_jax.data.images import decode
from deskpro_jax.data.load import enlarging
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.errors import InputError

FIELDS = ("body", "face", "restored_face", "cloth_mask")
GARMENTS = "garments"  # a further field: which pixels show upper clothes (1) and trousers (2)
_MAPS = ("cloth_mask", GARMENTS)
Box = tuple[float, float, float, float]
FULL: Box = (0.0, 0.0, 1.0, 1.0)  # left, top, right, bottom as fractions of the image
INTERPOLATIONS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
_LOOK_AT = 100  # records among which the first face is looked for


def resize(
    image: np.ndarray | Image.Image, size: tuple[int, int], box: Box = FULL, interpolation: str = "bilinear"
) -> np.ndarray:
    """Resizes a photo as Pillow's filters do (antialiased, rounded to uint8).

    Args:
        image: [height, width, 3] uint8, or a Pillow image.
        size: height and width in pixels of the result.
        box: window to cut out first, as fractions of the image: left, top, right, bottom.
        interpolation: the filter, a key of `INTERPOLATIONS`.

    Returns:
        [height, width, 3] uint8.
    """
    photo = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    return _resample(photo, size, box, INTERPOLATIONS[interpolation])


def _resample(image: Image.Image, size: tuple[int, int], box: Box, how: Image.Resampling) -> np.ndarray:
    height, width = size
    if box == FULL:
        return np.asarray(image.resize((width, height), how))
    return np.asarray(image.resize((width, height), how, box=_window(box, (image.height, image.width))))


def _window(box: Box, size: tuple[int, int]) -> Box:
    """Returns a window in pixels of an image of a height and width."""
    (left, top, right, bottom), (height, width) = box, size
    return (left * width, top * height, right * width, bottom * height)


@dataclasses.dataclass(frozen=True)
class Decoder:
    """What to decode, and to which sizes.

    Attributes:
        fields: some of `FIELDS`, and `GARMENTS`.
        body_size: height and width of the body and of its mask.
        face_size: height and width of both faces.
        clothing: part labels that are clothing.
        labels: number of labels the scheme has.
        enlarge: photos among `fields` that are only decoded where they are smaller than asked; the batch then says how
            to enlarge them (`enlarging.placed`). The others are resized here.
        garments: part labels of upper clothes, and of trousers.
        interpolation: filter that resizes photos, a key of `INTERPOLATIONS`; the device enlarges by "bilinear" only.

    Raises:
        InputError: a field is unknown, a size is not positive or a label is not of the scheme.
    """

    fields: tuple[str, ...]
    body_size: tuple[int, int]
    face_size: tuple[int, int]
    clothing: tuple[int, ...]
    labels: int
    enlarge: tuple[str, ...] = ()
    interpolation: str = "bilinear"
    garments: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if strange := set(self.fields) - {*FIELDS, GARMENTS}:
            raise InputError(f"fields {sorted(strange)} are unknown; choose of {', '.join(FIELDS)}")
        for name, size in (("body_size", self.body_size), ("face_size", self.face_size)):
            if len(size) != 2 or min(size) < 1:
                raise InputError(f"data.{name} is {size}, expected height and width in pixels")
        if wrong := [label for label in self.clothing if not 0 <= label < self.labels]:
            raise InputError(f"data.clothing has {wrong}, expected labels from 0 to {self.labels - 1}")

    def empty(self, size: int) -> dict[str, np.ndarray]:
        """Returns a batch of `size` rows that are all padding."""
        batch = {}
        for name in self.fields:
            colours = () if name in _MAPS else (3,)
            batch[name] = np.zeros((size, *self.size_of(name), *colours), np.uint8)
        for name in self.enlarge:
            height, width = self.size_of(name)
            batch[name + enlarging.ROWS] = np.zeros((size, height, 4), np.int32)
            batch[name + enlarging.COLUMNS] = np.zeros((size, width, 4), np.int32)
        return batch | {name: np.zeros(size, np.bool_) for name in ("has_face", "has_mask", "valid")}

    def fill(self, batch: dict[str, np.ndarray], row: int, split: ReIDSplit, index: int, box: Box) -> None:
        """Decodes one example into a row.

        Args:
            batch: as made by `empty`.
            row: which row.
            split: where the example is.
            index: position of the example in the split.
            box: window shared by all its images.

        Raises:
            InputError: the record or one of its images cannot be read; names the image and the split.
        """
        with _reading("the record", split, index):
            example = split[index]
        contents = {"body": example.body, "face": example.face, "restored_face": example.restored_face}
        for name in self.fields:
            if name in _MAPS:
                if example.parts is not None:
                    with _reading("the label map", split, index):
                        table = self._not_clothing() if name == "cloth_mask" else self._garments()
                        batch[name][row] = self._map(example.parts, box, table)
            elif (content := contents[name]) is not None:
                with _reading(f"the {name}", split, index):
                    if name in self.enlarge:
                        self._place(batch, name, row, decode(content), box)
                    else:
                        batch[name][row] = resize(decode(content), self.size_of(name), box, self.interpolation)
        faces = [contents[name] is not None for name in ("face", "restored_face") if name in self.fields]
        batch["has_face"][row] = all(faces) if faces else example.face is not None
        batch["has_mask"][row] = example.parts is not None

    def small(self, split: ReIDSplit) -> tuple[str, ...]:
        """Returns the fields whose photos the device can enlarge and has to, judged by the first photo of each field.

        One that cannot be read is skipped here, and reported when a batch needs it.
        """
        if self.interpolation != "bilinear":
            return ()
        photos, small = [name for name in self.fields if name not in _MAPS], dict[str, bool]()
        for index in range(min(len(split), _LOOK_AT)):
            with contextlib.suppress(Exception):  # array_record and Pillow's decoders raise many kinds
                example = split[index]
                for name in photos:
                    if name not in small and (content := getattr(example, name)) is not None:
                        shape, size = np.asarray(decode(content)).shape[:2], self.size_of(name)
                        small[name] = _fits(shape, size) and shape != size
            if len(small) == len(photos):
                break
        return tuple(name for name in photos if small.get(name))

    def size_of(self, name: str) -> tuple[int, int]:
        """Returns height and width of a field."""
        return self.body_size if name in ("body", *_MAPS) else self.face_size

    def _place(
        self, batch: dict[str, np.ndarray], name: str, row: int, image: np.ndarray | Image.Image, box: Box
    ) -> None:
        """Puts a photo into a row, as it is if it fits, and beside it what enlarges it."""
        photo, size = np.asarray(image), self.size_of(name)
        if not _fits(photo.shape[:2], size):
            photo, box = resize(image, size, box), FULL
        height, width = photo.shape[:2]
        batch[name][row, :height, :width] = photo
        left, top, right, bottom = _window(box, (height, width))
        for ending, length, low, high, pixels in (
            (enlarging.ROWS, height, top, bottom, size[0]),
            (enlarging.COLUMNS, width, left, right, size[1]),
        ):
            whole = (low, high) == (0, length)
            taps = enlarging.whole(length, pixels) if whole else enlarging.taps(length, low, high, pixels)
            batch[name + ending][row] = taps

    def _not_clothing(self) -> np.ndarray:
        """Returns a table of labels: 1 where one is not clothing."""
        table = np.ones(256, np.uint8)
        table[list(self.clothing)] = 0
        return table

    def _garments(self) -> np.ndarray:
        """Returns a table of labels: 1 for upper clothes, 2 for trousers, 0 for all else."""
        table = np.zeros(256, np.uint8)
        for number, labels in enumerate(self.garments, start=1):
            table[list(labels)] = number
        return table

    def _map(self, parts: bytes, box: Box, table: np.ndarray) -> np.ndarray:
        """Returns a label map with its labels renamed by a table, [height, width] uint8."""
        with Image.open(io.BytesIO(parts)) as labels:
            if labels.mode != "L":
                raise ValueError(f"mode {labels.mode}, expected L")
            # Nearest keeps labels whole, so it may come before the table.
            return table[_resample(labels, self.body_size, box, Image.Resampling.NEAREST)]


def _fits(shape: tuple[int, ...], size: tuple[int, int]) -> bool:
    return shape[0] <= size[0] and shape[1] <= size[1]


@contextlib.contextmanager
def _reading(what: str, split: ReIDSplit, index: int) -> Iterator[None]:
    """Names the image and the split in an error."""
    try:
        yield
    except MemoryError:  # the machine's fault, not the image's
        raise
    except Exception as error:  # array_record and Pillow's decoders raise many kinds
        raise InputError(
            f"{what} of image {split.image_id[index]} in {split.name}/{split.split} cannot be read "
            f"({split.where(index)}; {type(error).__name__}: {error}): build the dataset again, or set "
            "data.skip_corrupt=True"
        ) from error
