"""What makes an identity: face geometry, hair, skin, build and gait, drawn once a person."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from deskpro_jax.data.synthetic.canvas import Colour, darker

# Every trait is uniform over its range. Lengths of the face are in face heights (hairline to chin), those of the body
# in body heights, angles in degrees. The outline of a face, which a few pixels show, varies little; what only many
# pixels show varies much. Traits that begin below 0 are missing in the people who have them there.
FACE_RANGES = {
    "width": (0.70, 0.86),  # at the cheekbones
    "jaw": (0.64, 0.94),  # jaw width over cheekbone width
    "chin": (0.32, 0.72),  # chin width over jaw width
    "eye_spacing": (0.150, 0.230),  # face centre to eye centre
    "eye_size": (0.055, 0.108),  # half width of an eye
    "eye_opening": (0.30, 0.80),  # height of an eye over its width
    "eye_slant": (-15.0, 17.0),
    "eye_height": (-0.07, 0.03),
    "brow_height": (0.085, 0.160),  # above the eye
    "brow_thickness": (0.010, 0.050),
    "brow_tilt": (-17.0, 23.0),
    "brow_arch": (0.0, 0.045),
    "nose_length": (0.14, 0.29),
    "nose_width": (0.042, 0.110),
    "mouth_width": (0.080, 0.190),
    "mouth_height": (0.240, 0.330),
    "lip_fullness": (0.010, 0.052),
    "ear_size": (0.07, 0.14),
    "freckles": (-1.0, 1.0),
    "mole_x": (-0.27, 0.27),
    "mole_y": (-0.35, 0.38),
    "second_mole_x": (-0.27, 0.27),
    "second_mole_y": (-0.35, 0.38),
    "creases": (-1.0, 1.0),  # from the nose to the corners of the mouth
    "forehead_lines": (-1.0, 1.0),
    "eye_bags": (-1.0, 1.0),
    "cleft": (-1.0, 1.0),  # of the chin
}
HAIR_RANGES = {
    "length": (0.0, 1.0),  # 0 cropped, 0.35 over the ears, 1 on the chest
    "volume": (0.03, 0.26),
    "fringe": (-0.6, 1.0),  # below 0 a receding hairline, above 0 hair over the forehead
    "curl": (0.0, 1.0),
}
BUILD_RANGES = {
    "heads": (5.8, 8.6),  # body height over head height
    "shoulders": (0.072, 0.164),  # half widths
    "waist": (0.048, 0.150),
    "hips": (0.058, 0.146),
    "arm": (0.014, 0.036),
    "thigh": (0.026, 0.074),
    "calf": (0.018, 0.040),
    "legs": (0.400, 0.545),  # leg length
    "neck": (0.06, 0.36),  # visible neck, face heights
    "neck_width": (0.14, 0.31),
    "slope": (0.004, 0.070),  # how far the shoulders fall off from the neck
    "bow": (-0.026, 0.036),  # knees apart; below 0 together
}
GAIT_RANGES = {
    "swing": (2.0, 18.0),
    "stride": (0.15, 1.0),
    "lean": (-8.0, 8.0),
    "toe_out": (-10.0, 40.0),
    "elbow": (2.0, 68.0),
    "carry": (2.0, 30.0),  # how far the arms are held off the body
    "stance": (0.35, 1.65),
    "head_roll": (-10.0, 10.0),
    "shoulder_tilt": (-0.026, 0.026),  # one shoulder above the other
}
# Colours come in few kinds that many people share: none of them says who it is.
SKINS: tuple[Colour, ...] = ((236, 192, 164), (198, 146, 108), (128, 84, 58))
HAIRS: tuple[Colour, ...] = ((28, 23, 22), (72, 48, 34), (128, 92, 60))
IRISES: tuple[Colour, ...] = ((62, 40, 26), (92, 108, 112))
BEARDS = (0.0, 0.0, 0.0, 0.35, 0.85)  # none, stubble, full


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
    ear_size: float
    freckles: float
    mole_x: float
    mole_y: float
    second_mole_x: float
    second_mole_y: float
    creases: float
    forehead_lines: float
    eye_bags: float
    cleft: float


@dataclasses.dataclass(frozen=True)
class Hair:
    """Hair cut; see HAIR_RANGES."""

    length: float
    volume: float
    fringe: float
    curl: float
    parting: float = 0.0  # where the hair is parted, drawn anew for each image


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
    slope: float
    bow: float


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
    shoulder_tilt: float


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
    beard: float  # one of BEARDS


_Traits = TypeVar("_Traits", Face, Hair, Build, Gait)
_Kind = TypeVar("_Kind", Colour, float)


def _uniform(kind: type[_Traits], ranges: dict[str, tuple[float, float]], rng: np.random.Generator) -> _Traits:
    return kind(**{name: float(rng.uniform(low, high)) for name, (low, high) in ranges.items()})


def _one_of(kinds: Sequence[_Kind], rng: np.random.Generator) -> _Kind:
    return kinds[int(rng.integers(len(kinds)))]


def sample_person(rng: np.random.Generator) -> Person:
    """Draws an identity.

    Args:
        rng: source of randomness; the same state gives the same person.

    Returns:
        The person's constant traits.
    """
    hair = _one_of(HAIRS, rng)
    return Person(
        face=_uniform(Face, FACE_RANGES, rng),
        hair=_uniform(Hair, HAIR_RANGES, rng),
        build=_uniform(Build, BUILD_RANGES, rng),
        gait=_uniform(Gait, GAIT_RANGES, rng),
        skin=_one_of(SKINS, rng),
        hair_colour=hair,
        brow_colour=darker(hair, 0.7),
        iris=_one_of(IRISES, rng),
        beard=_one_of(BEARDS, rng),
    )


def on_the_day(person: Person, rng: np.random.Generator) -> Person:
    """Returns the person as seen in one image: hair tied or combed another way, stubble longer or shorter.

    Args:
        person: the identity.
        rng: the image's source of randomness.
    """
    hair = person.hair
    tied = rng.uniform() < 0.15
    return dataclasses.replace(
        person,
        hair=Hair(
            length=min(hair.length, 0.2) if tied else float(np.clip(hair.length + rng.normal(0, 0.05), 0, 1)),
            volume=hair.volume * rng.uniform(0.8, 1.2),
            fringe=float(np.clip(hair.fringe + rng.normal(0, 0.3), -0.6, 1)),
            parting=rng.uniform(-0.3, 0.3),
            curl=hair.curl,
        ),
        hair_colour=darker(person.hair_colour, rng.uniform(0.85, 1.15)),
        skin=darker(person.skin, rng.uniform(0.95, 1.05)),
        beard=float(np.clip(person.beard + rng.normal(0, 0.08) * (person.beard > 0), 0, 1)),
    )
