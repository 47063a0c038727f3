"""What one example of a dataset holds, and which part labels of each labelling scheme are clothing."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

SPLITS = ("train", "query", "gallery")
UNKNOWN_CLOTHES = -1
UNKNOWN_TRACKLET = -1
# Identities of query and gallery images that name no person.
DISTRACTOR = -1  # matches nobody, as every other negative number but JUNK
JUNK = -(2**31)  # ignored: neither a right nor a wrong match


@dataclasses.dataclass(frozen=True)
class LabelScheme:
    """A numbering of human parts.

    Attributes:
        name: key in `SCHEMES`.
        labels: name of each label; the position is the value in the label map.
        clothing: the values that count as clothing unless the configuration says otherwise.
        upper: those of upper clothes, or of the parts that they nearly always cover; () where no label is theirs.
        trousers: likewise.
    """

    name: str
    labels: tuple[str, ...]
    clothing: tuple[int, ...]
    upper: tuple[int, ...] = ()
    trousers: tuple[int, ...] = ()


class Example(NamedTuple):
    """One photo with everything that is known about it; images are encoded files, kept byte for byte.

    Attributes:
        image_id: unique within its split; the file name without its extension.
        body: the photo of the whole person (encoded, any format Pillow reads).
        parts: PNG of mode L whose values are labels of the dataset's scheme; None when there is none.
        face: the face as it appears in the photo (encoded), or None.
        restored_face: the same face restored to high resolution (encoded), or None.
        identity: the dataset's own number of the person; train and test numbers may overlap.
        camera: the dataset's own number of the camera.
        clothes: number of the outfit, -1 when it is not known.
        tracklet: number of the tracklet (photos of one person that one camera took in a row), -1 when it is not known;
            query and gallery are numbered together.
        scale: how large people are in the tracklet, a number of the dataset's own; -1 when it is not known.
    """

    image_id: str
    body: bytes
    parts: bytes | None
    face: bytes | None
    restored_face: bytes | None
    identity: int
    camera: int
    clothes: int
    tracklet: int = UNKNOWN_TRACKLET
    scale: int = -1


LIP = LabelScheme(
    "lip",
    (
        *("background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks", "pants"),
        *("jumpsuits", "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg"),
        *("left-shoe", "right-shoe"),
    ),
    clothing=(5, 6, 7, 8, 9, 10, 11, 12),
    upper=(5, 7),
    trousers=(9,),
)
ATR = LabelScheme(
    "atr",
    (
        *("background", "hat", "hair", "sunglasses", "upper-clothes", "skirt", "pants", "dress", "belt"),
        *("left-shoe", "right-shoe", "face", "left-leg", "right-leg", "left-arm", "right-arm", "bag", "scarf"),
    ),
    clothing=(4, 5, 6, 7, 8, 17),
    upper=(4,),
    trousers=(6,),
)
# Pascal-Person-Part has no label for clothing: the parts that clothes nearly always cover stand in.
PASCAL = LabelScheme(
    "pascal",
    ("background", "head", "torso", "upper-arms", "lower-arms", "upper-legs", "lower-legs"),
    clothing=(2, 3, 5, 6),
    upper=(2,),
    trousers=(5, 6),
)
CLOTH_MASK = LabelScheme("cloth_mask", ("not-clothing", "clothing"), clothing=(1,))

SCHEMES = {scheme.name: scheme for scheme in (LIP, ATR, PASCAL, CLOTH_MASK)}
