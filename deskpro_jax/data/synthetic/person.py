"""What makes an identity: face geometry, hair, skin, build and gait, drawn once a person."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import numpy as np

from deskpro_jax.data.synthetic.canvas import Colour, darker

# Every trait is uniform over its range. Lengths of the face are in face heights (hairline to chin), those of the body
# in body heights, angles in degrees.
FACE_RANGES = {
    "width": (0.64, 0.92),  # at the cheekbones
    "jaw": (0.60, 0.97),  # jaw width over cheekbone width
    "chin": (0.30, 0.75),  # chin width over jaw width
    "eye_spacing": (0.155, 0.225),  # face centre to eye centre
    "eye_size": (0.060, 0.105),  # half width of an eye
    "eye_opening": (0.35, 0.75),  # height of an eye over its width
    "eye_slant": (-12.0, 14.0),
    "eye_height": (-0.07, 0.03),
    "brow_height": (0.085, 0.155),  # above the eye
    "brow_thickness": (0.012, 0.050),
    "brow_tilt": (-14.0, 20.0),
    "brow_arch": (0.0, 0.04),
    "nose_length": (0.15, 0.28),
    "nose_width": (0.045, 0.105),
    "mouth_width": (0.085, 0.185),
    "mouth_height": (0.245, 0.325),
    "lip_fullness": (0.012, 0.050),
    "lip_redness": (0.15, 0.85),
    "ear_size": (0.07, 0.14),
    "freckles": (-1.0, 1.0),  # amount, none below 0
    "mole_x": (-0.25, 0.25),
    "mole_y": (0.0, 0.35),
}
HAIR_RANGES = {
    "length": (0.0, 1.0),  # 0 cropped, 0.35 over the ears, 1 on the chest
    "volume": (0.03, 0.26),
    "fringe": (-0.6, 1.0),  # below 0 a receding hairline, above 0 hair over the forehead
    "parting": (-0.3, 0.3),
    "curl": (0.0, 1.0),
}
BUILD_RANGES = {
    "heads": (6.5, 8.1),  # body height over head height
    "shoulders": (0.082, 0.150),  # half widths
    "waist": (0.056, 0.132),
    "hips": (0.066, 0.128),
    "arm": (0.017, 0.030),
    "thigh": (0.030, 0.062),
    "calf": (0.021, 0.034),
    "legs": (0.435, 0.515),  # leg length
    "neck": (0.10, 0.30),  # visible neck, face heights
    "neck_width": (0.17, 0.27),
}
GAIT_RANGES = {
    "swing": (2.0, 18.0),
    "stride": (0.15, 1.0),
    "lean": (-4.0, 4.0),
    "toe_out": (-6.0, 34.0),
    "elbow": (2.0, 40.0),
    "carry": (3.0, 20.0),  # how far the arms are held off the body
    "stance": (0.45, 1.25),
    "head_roll": (-7.0, 7.0),
}
_SKIN = np.array(
    [(250, 222, 204), (240, 198, 168), (222, 172, 132), (192, 138, 96), (148, 98, 64), (104, 66, 44), (70, 45, 33)],
    np.float64,
)
_HAIR = np.array(
    [
        (24, 20, 20),
        (52, 36, 28),
        (92, 60, 38),
        (140, 92, 52),
        (198, 156, 92),
        (232, 208, 150),
        (150, 62, 28),
        (196, 88, 40),
        (128, 128, 130),
        (214, 214, 214),
        # Dyed, more often than on a real street: hair must tell people apart in an image of the whole body.
        (168, 28, 52),
        (44, 74, 176),
        (52, 146, 92),
        (142, 66, 178),
        (240, 124, 172),
    ],
    np.float64,
)
_IRIS = np.array(
    [(52, 32, 20), (96, 62, 34), (104, 112, 60), (70, 118, 92), (84, 132, 178), (132, 142, 150)], np.float64
)


@dataclasses.dataclass(frozen=True)
class Face:
    """Face geometry; see FACE_RANGES."""

    width: float
    jaw: float
    chin: float
    eye_spacing: float
    eye_size: float
    eye_opening: float
    eye_slant: float
    eye_height: float
    brow_height: float
    brow_thickness: float
    brow_tilt: float
    brow_arch: float
    nose_length: float
    nose_width: float
    mouth_width: float
    mouth_height: float
    lip_fullness: float
    lip_redness: float
    ear_size: float
    freckles: float
    mole_x: float
    mole_y: float


@dataclasses.dataclass(frozen=True)
class Hair:
    """Hair cut; see HAIR_RANGES."""

    length: float
    volume: float
    fringe: float
    parting: float
    curl: float


@dataclasses.dataclass(frozen=True)
class Build:
    """Proportions of the body; see BUILD_RANGES."""

    heads: float
    shoulders: float
    waist: float
    hips: float
    arm: float
    thigh: float
    calf: float
    legs: float
    neck: float
    neck_width: float


@dataclasses.dataclass(frozen=True)
class Gait:
    """Manner of walking and standing; see GAIT_RANGES."""

    swing: float
    stride: float
    lean: float
    toe_out: float
    elbow: float
    carry: float
    stance: float
    head_roll: float


@dataclasses.dataclass(frozen=True)
class Person:
    """One identity: all that stays the same from image to image."""

    face: Face
    hair: Hair
    build: Build
    gait: Gait
    skin: Colour
    hair_colour: Colour
    brow_colour: Colour
    iris: Colour
    beard: float  # 0 none, up to 0.5 stubble, up to 1 a full beard
    moustache: float
    beard_length: float
    glasses: bool


_Traits = TypeVar("_Traits", Face, Hair, Build, Gait)


def _uniform(kind: type[_Traits], ranges: dict[str, tuple[float, float]], rng: np.random.Generator) -> _Traits:
    return kind(**{name: float(rng.uniform(low, high)) for name, (low, high) in ranges.items()})


def _along(palette: np.ndarray, position: float) -> np.ndarray:
    """Colour at a position from 0 to 1 along a list of colours."""
    at = position * (len(palette) - 1)
    low = min(int(at), len(palette) - 2)
    return palette[low] + (palette[low + 1] - palette[low]) * (at - low)


def _colour(values: np.ndarray) -> Colour:
    r, g, b = (int(v) for v in np.clip(np.rint(values), 0, 255))
    return (r, g, b)


def sample_person(rng: np.random.Generator) -> Person:
    """Draws an identity.

    Args:
        rng: source of randomness; the same state gives the same person.

    Returns:
        The person's constant traits.
    """
    skin = _colour(_along(_SKIN, rng.uniform()) * (1 + rng.uniform(-0.05, 0.05, 3)))
    hair = _colour(_HAIR[rng.integers(len(_HAIR))] * rng.uniform(0.8, 1.2) * (1 + rng.uniform(-0.06, 0.06, 3)))
    beard = max(0.0, rng.uniform(-1.0, 1.0))
    return Person(
        face=_uniform(Face, FACE_RANGES, rng),
        hair=_uniform(Hair, HAIR_RANGES, rng),
        build=_uniform(Build, BUILD_RANGES, rng),
        gait=_uniform(Gait, GAIT_RANGES, rng),
        skin=skin,
        hair_colour=hair,
        brow_colour=darker(hair, rng.uniform(0.45, 0.8)),
        iris=_colour(_along(_IRIS, rng.uniform())),
        beard=beard,
        moustache=beard * rng.uniform(0.3, 1.0),
        beard_length=rng.uniform(0.0, 0.12),
        glasses=bool(rng.uniform() < 0.18),
    )


def on_the_day(person: Person, rng: np.random.Generator) -> Person:
    """Returns the person as seen in one image: hair combed a little differently, stubble a little longer.

    Args:
        person: the identity.
        rng: the image's source of randomness.
    """
    hair = person.hair
    return dataclasses.replace(
        person,
        hair=Hair(
            length=float(np.clip(hair.length + rng.normal(0, 0.025), 0, 1)),
            volume=hair.volume * rng.uniform(0.88, 1.12),
            fringe=float(np.clip(hair.fringe + rng.normal(0, 0.07), -0.6, 1)),
            parting=hair.parting + rng.normal(0, 0.02),
            curl=hair.curl,
        ),
        hair_colour=darker(person.hair_colour, rng.uniform(0.93, 1.07)),
        skin=darker(person.skin, rng.uniform(0.97, 1.03)),
        beard=float(np.clip(person.beard + rng.normal(0, 0.05) * (person.beard > 0), 0, 1)),
        glasses=person.glasses and rng.uniform() < 0.9,
    )
