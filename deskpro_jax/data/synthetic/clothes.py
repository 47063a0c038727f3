"""What a person wears in one image: cut, colours and texture, from one distribution for everybody."""

from __future__ import annotations

import colorsys
import dataclasses

import numpy as np
from PIL import Image

from deskpro_jax.data.synthetic.canvas import Colour

_TILE = 128  # textures repeat after this many canvas pixels
_Y, _X = np.mgrid[0:_TILE, 0:_TILE].astype(np.float32)


@dataclasses.dataclass(frozen=True)
class Garment:
    """One piece of clothing: its texture and the colour of its trimmings."""

    texture: Image.Image
    trim: Colour


@dataclasses.dataclass(frozen=True)
class Outfit:
    """All clothes and accessories of one image; lengths are shares of the limb or trunk they cover."""

    whole: str  # "dress", "jumpsuit" or "" for a top with a bottom
    bottom: str  # "pants" or "skirt"
    top: Garment
    lower: Garment
    sleeve: float  # 0 none, 0.5 to the elbow, 1 to the wrist
    sleeve_looseness: float
    hem: float  # how far the top reaches below the hips, shares of the leg
    looseness: float  # widening of the trunk
    neckline: float  # depth, face heights
    v_neck: bool
    trim: str  # "", "buttons", "zip" or "print"
    leg: float  # length of trousers or skirt, shares of the leg
    leg_looseness: float
    coat: Garment | None
    coat_open: bool
    coat_length: float
    shoe: Colour
    shoe_height: float  # 0 a shoe, 1 a boot up to the calf
    sole: Colour
    socks: Colour | None
    gloves: Colour | None
    scarf: Garment | None
    hat: Colour | None
    hat_kind: int  # 0 cap, 1 beanie, 2 brimmed
    sunglasses: bool
    glasses: bool
    bag: Colour | None
    bag_side: int


def _dye(rng: np.random.Generator) -> np.ndarray:
    """One cloth colour: black, white, grey, denim or any hue."""
    kind = rng.uniform()
    if kind < 0.14:
        return rng.uniform(10, 50) + rng.uniform(-6, 6, 3)
    if kind < 0.26:
        return rng.uniform(195, 245) + rng.uniform(-10, 6, 3)
    if kind < 0.36:
        return rng.uniform(70, 170) + rng.uniform(-10, 10, 3)
    if kind < 0.46:
        return np.array([50.0, 75.0, 120.0]) * rng.uniform(0.5, 1.5)
    hue, saturation, value = rng.uniform(), rng.uniform(0.25, 0.9), rng.uniform(0.25, 0.95)
    return 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, value))


def _colour(rng: np.random.Generator) -> Colour:
    r, g, b = (int(v) for v in np.clip(_dye(rng), 0, 255))
    return (r, g, b)


def _pattern(rng: np.random.Generator) -> np.ndarray:
    """Share of the second colour [tile, tile], 0 to 1."""
    y, x = _Y, _X
    kind = rng.integers(9)
    period = float(rng.choice([4, 8, 16, 32]))
    share = rng.uniform(0.25, 0.75)
    rows, columns = (y % period) / period < share, (x % period) / period < share
    if kind < 3:
        return np.zeros((_TILE, _TILE), np.float32)
    if kind == 3:
        return rows.astype(np.float32)
    if kind == 4:
        return columns.astype(np.float32)
    if kind == 5:
        return 0.5 * rows + 0.5 * columns
    if kind == 6:
        radius = period * rng.uniform(0.2, 0.4)
        return (np.hypot(x % period - period / 2, y % period - period / 2) < radius).astype(np.float32)
    if kind == 7:
        coarse = rng.uniform(0, 255, (_TILE // 8, _TILE // 8)).astype(np.uint8)
        blotches = Image.fromarray(coarse).resize((_TILE, _TILE), Image.Resampling.BICUBIC)
        return np.clip((np.asarray(blotches, np.float32) - 90) / 80, 0, 1)
    return (((x + y) % period) / period < share).astype(np.float32)


def sample_garment(rng: np.random.Generator, size: tuple[int, int]) -> Garment:
    """Draws the texture of a piece of clothing.

    Args:
        rng: the image's source of randomness.
        size: width and height of the canvas in pixels, the size of the texture.
    """
    first, second = _dye(rng).astype(np.float32), _dye(rng).astype(np.float32)
    share = _pattern(rng)[..., None] * rng.uniform(0.4, 1.0)
    weave = rng.uniform(0, 10) * rng.standard_normal((_TILE, _TILE, 1), np.float32)
    tile = np.clip(first + (second - first) * share + weave, 0, 255).astype(np.uint8)
    columns, rows = -(-size[0] // _TILE), -(-size[1] // _TILE)
    texture = Image.fromarray(np.ascontiguousarray(np.tile(tile, (rows, columns, 1))[: size[1], : size[0]]))
    r, g, b = (int(v) for v in np.clip(second, 0, 255))
    return Garment(texture, (r, g, b))


def sample_outfit(rng: np.random.Generator, size: tuple[int, int]) -> Outfit:
    """Draws new clothes.

    Args:
        rng: the image's source of randomness.
        size: width and height of the canvas in pixels.
    """
    kind = rng.uniform()
    whole = "dress" if kind < 0.07 else "jumpsuit" if kind < 0.12 else ""
    top = sample_garment(rng, size)
    bottom = "skirt" if rng.uniform() < 0.10 else "pants"
    short = rng.uniform() < 0.3
    lengths = {"skirt": (0.25, 0.85), "pants": (0.3, 0.5) if short else (0.85, 1.0)}
    leg = rng.uniform(0.25, 0.9) if whole == "dress" else rng.uniform(*lengths[bottom])
    coat = rng.uniform() < 0.15
    return Outfit(
        whole=whole,
        bottom=bottom,
        top=top,
        lower=top if whole else sample_garment(rng, size),
        sleeve=float(rng.choice([0.0, rng.uniform(0.3, 0.6), 1.0], p=[0.12, 0.38, 0.5])),
        sleeve_looseness=rng.uniform(1.08, 1.35),
        hem=rng.uniform(-0.02, 0.16),
        looseness=rng.uniform(1.02, 1.12),
        neckline=rng.uniform(0.02, 0.28),
        v_neck=bool(rng.uniform() < 0.35),
        trim=str(rng.choice(["", "buttons", "zip", "print"], p=[0.5, 0.15, 0.1, 0.25])),
        leg=1.0 if whole == "jumpsuit" else leg,
        leg_looseness=rng.uniform(1.05, 1.3),
        coat=sample_garment(rng, size) if coat else None,
        coat_open=bool(rng.uniform() < 0.6),
        coat_length=rng.uniform(0.05, 0.6),
        shoe=_colour(rng),
        shoe_height=float(rng.choice([0.0, rng.uniform(0.5, 1.0)], p=[0.75, 0.25])),
        sole=(235, 235, 230) if rng.uniform() < 0.5 else (25, 22, 20),
        socks=_colour(rng) if rng.uniform() < 0.5 else None,
        gloves=_colour(rng) if rng.uniform() < 0.05 else None,
        scarf=sample_garment(rng, size) if rng.uniform() < 0.10 else None,
        hat=_colour(rng) if rng.uniform() < 0.10 else None,
        hat_kind=int(rng.integers(3)),
        sunglasses=bool(rng.uniform() < 0.06),
        glasses=bool(rng.uniform() < 0.12),
        bag=_colour(rng) if rng.uniform() < 0.22 else None,
        bag_side=int(rng.integers(2)),
    )
