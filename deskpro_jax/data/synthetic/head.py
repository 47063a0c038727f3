"""Draws a head: hair, ears, face, headgear. One drawing gives the crisp face and the small one in the body image."""

from __future__ import annotations

import math

import numpy as np

from deskpro_jax.data.synthetic import labels
from deskpro_jax.data.synthetic.canvas import Canvas, blend, darker, ellipse, mirrored, smooth
from deskpro_jax.data.synthetic.clothes import Outfit
from deskpro_jax.data.synthetic.features import draw_features
from deskpro_jax.data.synthetic.person import Face, Person
from deskpro_jax.data.synthetic.pose import BodyView

CROWN = -0.72  # top of the skull; the face reaches from -0.5 (hairline) to 0.5 (chin)


def skull(face: Face) -> np.ndarray:
    """Outline [n, 2] of the head without hair, face heights."""
    w = face.width / 2
    jaw = w * face.jaw
    half = [
        (0.0, CROWN),
        (0.55 * w, -0.68),
        (0.92 * w, -0.46),
        (w, -0.12),
        (0.5 * (w + jaw), 0.14),
        (jaw, 0.29),
        (jaw * (0.35 + 0.65 * face.chin), 0.42),
        (jaw * face.chin * 0.62, 0.49),
        (0.0, 0.505),
    ]
    return smooth(mirrored(np.array(half)), 5)


def hair_bottom(person: Person) -> float:
    """How far down the hair reaches, face heights below the centre of the face."""
    return -0.12 + 1.30 * person.hair.length**1.3


def _wavy(points: np.ndarray, curl: float, volume: float) -> np.ndarray:
    """Roughens an outline the way curls do, with the same waves in every image of a person."""
    middle = points.mean(axis=0)
    waves = np.sin(np.arange(len(points)) * (2 * math.pi / 4.0))
    return middle + (points - middle) * (1 + (0.03 + 0.35 * volume) * curl * waves)[:, None]


def draw_back_hair(canvas: Canvas, person: Person, view: BodyView) -> None:
    """Draws the hair that hangs behind head and neck; on a back view it covers the whole head.

    Args:
        canvas: in face heights around the centre of the face.
        person: whose hair.
        view: viewpoint.
    """
    hair, w = person.hair, person.face.width / 2
    bottom = max(hair_bottom(person), 0.22 if view.back else -0.12)
    side, top = w + hair.volume * 0.8, CROWN - hair.volume
    spread = side * (0.9 + 0.35 * hair.length)
    half = [(0.0, top), (0.6 * side, top + 0.06), (side, -0.40), (side, -0.1)]
    half += [(spread, 0.5 * bottom), (spread * 0.97, bottom - 0.05), (0.0, bottom + 0.03)]
    shape = _wavy(smooth(mirrored(np.array(half)), 5), hair.curl, hair.volume)
    shape = shape - (0.10 * math.sin(view.yaw) * (not view.back), 0.0)
    colour = person.hair_colour if view.back else darker(person.hair_colour, 0.72)
    canvas.fill(shape, colour, labels.HAIR)
    if view.back:
        for k in range(-3, 4):
            x = k * side / 4
            line = np.array([(x * 0.5, top + 0.08), (x, -0.3), (x * 1.05, bottom - 0.05)])
            canvas.stroke(smooth(line, 6, closed=False), darker(person.hair_colour, 0.75), 2, 0.7)


def _hair_cap(person: Person, view: BodyView) -> np.ndarray:
    """Outline of the hair over forehead and temples, seen from the front."""
    hair, w = person.hair, person.face.width / 2
    side, top = w + 0.35 * hair.volume + 0.01, CROWN - hair.volume
    turn = math.sin(view.yaw)
    temple = -0.10 + 0.2 * min(1.0, hair.length * 2)
    outer = [(-side, temple), (-side, -0.30), (-0.80 * side, -0.60), (-0.42 * side, top + 0.035), (0.0, top)]
    outer += [(-x, y) for x, y in outer[-2::-1]]
    xs = np.linspace(1.0, -1.0, 17)
    fringe = max(hair.fringe, 0.0)
    line = -0.46 + 0.20 * min(hair.fringe, 0.0) + 0.25 * fringe
    gap = np.exp(-(((xs - hair.parting * 2.4) / 0.3) ** 2)) * (0.10 + 0.16 * fringe)
    ys = line - gap + 0.20 * np.abs(xs) ** 3 * (1 - 0.6 * fringe)
    ys = ys + 0.018 * hair.curl * np.sin(np.arange(17) * 2.6)
    inner = [(0.93 * w, temple)] + [(x * 0.88 * w + 0.13 * turn * (1 - abs(x)), y) for x, y in zip(xs, ys, strict=True)]
    inner += [(-0.93 * w, temple)]
    return np.concatenate([smooth(np.array(outer), 4, closed=False), np.array(inner)])


def _draw_strands(canvas: Canvas, person: Person, view: BodyView) -> None:
    """Hair beside the face, over the ears."""
    hair, w = person.hair, person.face.width / 2
    bottom = hair_bottom(person)
    if bottom < 0.05:
        return
    width = 0.05 + 0.5 * hair.volume
    for side in (-1, 1):
        shift = 0.06 * math.sin(view.yaw)
        near = w * (0.97 - 0.08 * hair.length) - side * shift
        shape = np.array(
            [
                (near - 0.05, -0.5),
                (near + width * 0.4, -0.4),
                (near + width, -0.1),
                (near + width * 1.1, 0.6 * bottom),
                (near + width * 0.7, bottom),
                (near + 0.02, bottom - 0.04),
                (near + 0.01, 0.4 * bottom),
                (near - 0.03, -0.2),
            ]
        )
        shape = _wavy(smooth(shape * (side, 1), 4), 0.6 * hair.curl, hair.volume)
        canvas.fill(shape, darker(person.hair_colour, 0.93), labels.HAIR)


def _draw_hat(canvas: Canvas, person: Person, view: BodyView, outfit: Outfit) -> None:
    if outfit.hat is None:
        return
    side = person.face.width / 2 + 0.5 * person.hair.volume + 0.03
    top = CROWN - 0.7 * person.hair.volume - 0.06
    brim = -0.38 if outfit.hat_kind == 1 else -0.42
    half = np.array([(0.0, top), (0.6 * side, top + 0.05), (0.97 * side, top + 0.22), (side, brim)])
    canvas.fill(
        np.concatenate([smooth(half * (-1, 1), 5, closed=False)[::-1], smooth(half, 5, closed=False)]),
        outfit.hat,
        labels.HAT,
    )
    shadow = darker(outfit.hat, 0.7)
    if outfit.hat_kind == 0 and not view.back:
        canvas.fill(ellipse(0.2 * math.sin(view.yaw), brim, 0.85 * side, 0.09), shadow, labels.HAT)
    elif outfit.hat_kind == 1:
        canvas.fill(ellipse(0, brim - 0.03, side * 1.04, 0.07), shadow, labels.HAT)
    elif outfit.hat_kind == 2:
        canvas.fill(ellipse(0, brim, 1.6 * side, 0.08), shadow, labels.HAT)


def draw_head(canvas: Canvas, person: Person, view: BodyView, outfit: Outfit) -> None:
    """Draws the head in front of the neck.

    Args:
        canvas: in face heights around the centre of the face.
        person: the identity, as seen on the day.
        view: viewpoint and expression.
        outfit: for hat and glasses.
    """
    face, skin = person.face, person.skin
    w = face.width / 2
    turn = math.sin(view.yaw)
    for side in (-1, 1):
        if view.back or side * turn < 0.45:  # the ear on the far side disappears behind the cheek
            x = side * (w + 0.25 * face.ear_size) - (0.0 if view.back else 0.12 * turn)
            label = labels.HAIR if view.back else labels.FACE
            if view.back and hair_bottom(person) > 0.05:
                continue
            canvas.fill(
                ellipse(x, 0.01, 0.6 * face.ear_size, 1.1 * face.ear_size, side * 0.15), darker(skin, 0.9), label
            )
    if view.back:
        draw_back_hair(canvas, person, view)
        _draw_hat(canvas, person, view, outfit)
        return
    outline = skull(face)
    outline = outline + np.stack([0.10 * turn * (outline[:, 1] + 0.3), np.zeros(len(outline))], axis=1)
    canvas.fill(outline, skin, labels.FACE)
    draw_features(canvas, person, view, outfit.glasses and not outfit.sunglasses)
    _draw_strands(canvas, person, view)
    cap = _hair_cap(person, view)
    canvas.fill(cap, person.hair_colour, labels.HAIR)
    shine = blend(person.hair_colour, (255, 255, 255), 0.25)
    canvas.shade(ellipse(0.12 - 0.2 * turn, CROWN - 0.3 * person.hair.volume, 0.5 * w, 0.05), shine, 0.35)
    if outfit.sunglasses:
        for side in (-1, 1):
            x = side * face.eye_spacing * math.cos(view.yaw) + 0.38 * turn
            canvas.fill(ellipse(x, face.eye_height, 0.145, 0.095), (18, 18, 22), labels.SUNGLASSES)
        bridge = np.array(
            [(-w + 0.1 * turn, -0.02), (w + 0.1 * turn, -0.02), (w + 0.1 * turn, 0.0), (-w + 0.1 * turn, 0.0)]
        )
        canvas.fill(bridge + np.array([0, face.eye_height]), (18, 18, 22), labels.SUNGLASSES)
    _draw_hat(canvas, person, view, outfit)
