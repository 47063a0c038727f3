"""Draws what lies on a face: eyes, brows, nose, mouth, beard, freckles, glasses."""

from __future__ import annotations

import math

import numpy as np

from deskpro_jax.data.synthetic import labels
from deskpro_jax.data.synthetic.canvas import Canvas, Colour, blend, darker, ellipse, smooth
from deskpro_jax.data.synthetic.person import Face, Person
from deskpro_jax.data.synthetic.pose import BodyView

_DEPTH = 0.42  # half depth of a head, face heights
_FRECKLES = np.random.default_rng(5).uniform(-1, 1, (26, 2))  # one fixed scatter; how visible it is, is the trait


def turned(points: np.ndarray, face: Face, view: BodyView) -> np.ndarray:
    """Moves points [n, 2] of a frontal face to where they are seen on the turned head (an ellipsoid)."""
    w = face.width / 2
    inside = 1 - (points[:, 0] / (1.1 * w)) ** 2 - (points[:, 1] / 0.95) ** 2
    z = _DEPTH * np.sqrt(np.maximum(inside, 0.0))
    x = points[:, 0] * math.cos(view.yaw) + z * math.sin(view.yaw)
    return np.stack([x, points[:, 1] + 0.8 * z * math.sin(view.pitch)], axis=1)


def _tilted(points: np.ndarray, x: float, y: float, degrees: float, side: int) -> np.ndarray:
    """Places a right-side shape at (x, y), its outer end raised by an angle, mirrored for side -1."""
    angle = math.radians(-degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    px = points[:, 0] * cos - points[:, 1] * sin + x
    py = points[:, 0] * sin + points[:, 1] * cos + y
    return np.stack([side * px, py], axis=1)


def _draw_eye(canvas: Canvas, person: Person, view: BodyView, side: int) -> None:
    face = person.face
    size, height = face.eye_size, face.eye_size * face.eye_opening * view.eyes_open
    x, y = face.eye_spacing, face.eye_height

    def place(points: np.ndarray, tilt: float = face.eye_slant) -> np.ndarray:
        return turned(_tilted(points, x, y, tilt, side), face, view)

    canvas.shade(place(ellipse(0, -0.01, size * 1.35, height + 0.045)), darker(person.skin, 0.72), 0.45)
    lid = smooth(np.array([(-size, 0.0), (-0.4 * size, -height), (0.45 * size, -0.95 * height), (size, 0.0)]), 5, False)
    low = smooth(
        np.array([(size, 0.0), (0.3 * size, 0.75 * height), (-0.5 * size, 0.7 * height), (-size, 0.0)]), 5, False
    )
    canvas.shade(place(np.concatenate([lid, low])), (238, 234, 230), 1.0)
    iris = min(0.055, 0.98 * height + 0.004)
    canvas.shade(place(ellipse(0, 0, iris, min(iris, height)), 0.0), person.iris, 1.0)
    canvas.shade(place(ellipse(0, 0, 0.45 * iris, 0.45 * min(iris, height)), 0.0), (12, 10, 10), 1.0)
    canvas.shade(place(ellipse(0.014, -0.014, 0.012, 0.012), 0.0), (250, 250, 250), 0.9)
    thick = lid - (0.0, 0.014)
    canvas.shade(place(np.concatenate([lid, thick[::-1]])), darker(person.skin, 0.22), 0.95)


def _draw_brow(canvas: Canvas, person: Person, view: BodyView, side: int) -> None:
    face = person.face
    length, thick, arch = face.eye_size * 1.35, face.brow_thickness, face.brow_arch
    top = np.array([(-length, -thick * 0.9), (0.1 * length, -thick - arch), (length, -0.2 * thick)])
    low = np.array([(length, 0.25 * thick), (0.1 * length, 0.7 * thick - arch), (-length, thick * 0.8)])
    shape = np.concatenate([smooth(top, 5, False), smooth(low, 5, False)])
    placed = _tilted(shape, face.eye_spacing, face.eye_height - face.brow_height, face.brow_tilt, side)
    canvas.shade(turned(placed, face, view), person.brow_colour, 0.95)


def _draw_nose(canvas: Canvas, person: Person, view: BodyView) -> None:
    face, dark = person.face, darker(person.skin, 0.68)
    top, tip, w = face.eye_height - 0.02, face.eye_height + face.nose_length, face.nose_width
    bridge = np.array([(-0.030, top), (-0.022, top), (-0.5 * w, tip - 0.03), (-w, tip), (-0.8 * w, tip - 0.05)])
    shift = np.array([0.06 * math.sin(view.yaw), 0.0])  # the nose stands out from the ellipsoid
    canvas.shade(turned(bridge, face, view) + shift, dark, 0.55)
    light = np.array([(-0.008, top), (0.012, top), (0.3 * w, tip - 0.02), (-0.2 * w, tip - 0.02)])
    canvas.shade(turned(light, face, view) + shift, blend(person.skin, (255, 255, 255), 0.5), 0.30)
    base = [(-w, tip - 0.01), (-0.6 * w, tip + 0.02), (0.0, tip + 0.03), (0.6 * w, tip + 0.02), (w, tip - 0.01)]
    base += [(0.6 * w, tip - 0.005), (0.0, tip + 0.008), (-0.6 * w, tip - 0.005)]
    canvas.shade(turned(np.array(base), face, view) + shift, dark, 0.85)
    for side in (-1, 1):
        nostril = turned(ellipse(side * 0.5 * w, tip + 0.006, 0.22 * w, 0.011), face, view) + shift
        canvas.shade(nostril, darker(person.skin, 0.35), 0.9)


def _draw_mouth(canvas: Canvas, person: Person, view: BodyView) -> None:
    face = person.face
    w, y, full = face.mouth_width * (1 + 0.12 * view.smile), face.mouth_height, face.lip_fullness
    corner = y - 0.022 * view.smile
    gap = 0.028 * view.mouth_open
    lips: Colour = blend(darker(person.skin, 0.78), (178, 56, 62), 0.35)
    upper = [(-w, corner), (-0.45 * w, y - 0.6 * full), (-0.12 * w, y - full), (0.0, y - 0.75 * full)]
    upper += [(0.12 * w, y - full), (0.45 * w, y - 0.6 * full), (w, corner), (0.0, y + 0.004)]
    lower = [(-w, corner), (0.0, y + gap), (w, corner), (0.5 * w, y + gap + 0.9 * full), (0.0, y + gap + 1.25 * full)]
    lower += [(-0.5 * w, y + gap + 0.9 * full)]
    inside = [(-w, corner), (0.0, y - 0.003), (w, corner), (0.0, y + gap + 0.004)]
    canvas.shade(turned(np.array(upper), face, view), darker(lips, 0.88), 1.0)
    canvas.shade(turned(smooth(np.array(lower), 3), face, view), lips, 1.0)
    canvas.shade(turned(np.array(inside), face, view), (70, 22, 24), 1.0)
    canvas.shade(
        turned(ellipse(0, y + gap + 1.6 * full + 0.015, 0.6 * w, 0.012), face, view), darker(person.skin, 0.7), 0.5
    )


def _draw_beard(canvas: Canvas, person: Person, view: BodyView) -> None:
    if person.beard <= 0:
        return
    face, colour = person.face, person.brow_colour
    w = face.width / 2
    jaw, y = w * face.jaw, face.mouth_height
    opacity = 0.25 + 0.7 * person.beard
    drop = 0.5 + 0.06 * person.beard
    outer = [(-0.97 * w, 0.02), (-0.99 * jaw, 0.28), (-0.85 * jaw * (0.35 + 0.65 * face.chin), 0.43), (0.0, drop)]
    outer += [(-x, py) for x, py in outer[-2::-1]]
    cheek = 0.16 + 0.10 * (1 - person.beard)
    inner = [(0.9 * w, 0.03), (0.78 * jaw, cheek), (0.3 * w, y + 0.05), (0.0, y + 0.07)]
    inner += [(-x, py) for x, py in inner[-2::-1]]
    outline = np.concatenate([smooth(np.array(outer), 4, False), smooth(np.array(inner), 4, False)])
    outline = outline + np.stack([0.10 * math.sin(view.yaw) * (outline[:, 1] + 0.3), np.zeros(len(outline))], axis=1)
    if person.beard > 0.4:  # a full beard reaches below the chin
        below = np.array(
            [(-0.55 * jaw, 0.40), (0.55 * jaw, 0.40), (0.4 * jaw, drop), (0.0, drop + 0.03), (-0.4 * jaw, drop)]
        )
        canvas.fill(smooth(below, 4), blend(person.skin, colour, opacity), labels.FACE)
    canvas.shade(outline, colour, opacity)
    hair = face.mouth_width * 1.1
    lip = [(-hair, y), (-0.6 * hair, y - 0.05), (0.0, y - 0.06), (0.6 * hair, y - 0.05), (hair, y), (0.0, y - 0.02)]
    canvas.shade(turned(smooth(np.array(lip), 3), face, view), colour, person.beard * 0.6)


def _draw_lines(canvas: Canvas, person: Person, view: BodyView) -> None:
    """Lines of the skin, each as deep as its trait: too thin to be seen in a small face."""
    face, dark = person.face, darker(person.skin, 0.5)

    def draw(depth: float, points: list[tuple[float, float]]) -> None:
        if depth > 0:
            canvas.stroke(smooth(turned(np.array(points), face, view), 5, closed=False), dark, 2, 0.25 + 0.6 * depth)

    mouth, eye = face.mouth_height, face.eye_height
    for side in (-1, 1):
        nose = (side * 1.25 * face.nose_width, eye + face.nose_length)
        corner = (side * (face.mouth_width + 0.03), mouth - 0.01)
        cheek = (0.5 * (nose[0] + corner[0]) + side * 0.025, 0.5 * (nose[1] + corner[1]))
        draw(face.creases, [nose, cheek, corner])
        x, low = side * face.eye_spacing, eye + face.eye_size * face.eye_opening + 0.035
        draw(face.eye_bags, [(x - 0.07, low - 0.01), (x, low + 0.02), (x + 0.07, low - 0.01)])
    for y in (-0.34, -0.29):
        draw(face.forehead_lines, [(-0.17, y), (0.0, y - 0.015), (0.17, y)])
    draw(face.cleft, [(0.0, 0.40), (0.0, 0.455)])


def draw_features(canvas: Canvas, person: Person, view: BodyView, glasses: bool) -> None:
    """Draws the features of a face onto the skin; labels stay those of the skin.

    Args:
        canvas: in face heights around the centre of the face.
        person: the identity, as seen on the day.
        view: viewpoint and expression.
        glasses: whether the person wears some.
    """
    face, skin = person.face, person.skin
    w = face.width / 2
    for side in (-1, 1):
        blush = turned(ellipse(side * 0.62 * w, 0.16, 0.10, 0.07), face, view)
        canvas.shade(blush, blend(skin, (214, 84, 80), 0.45), 0.30)
    if face.freckles > 0:
        for x, y in _FRECKLES * (0.75 * w, 0.11) + (0.0, 0.12):
            dot = turned(ellipse(x, y, 0.013, 0.012, count=8), face, view)
            canvas.shade(dot, darker(skin, 0.62), 0.35 + 0.6 * face.freckles)
    _draw_beard(canvas, person, view)
    _draw_mouth(canvas, person, view)
    for x, y in ((face.mole_x, face.mole_y), (face.second_mole_x, face.second_mole_y)):
        canvas.shade(turned(ellipse(x, y, 0.016, 0.016, count=12), face, view), darker(skin, 0.3), 0.95)
    _draw_lines(canvas, person, view)
    for side in (-1, 1):
        _draw_eye(canvas, person, view, side)
        _draw_brow(canvas, person, view, side)
    _draw_nose(canvas, person, view)
    if glasses:
        for side in (-1, 1):
            rim = turned(ellipse(side * face.eye_spacing, face.eye_height, 0.125, 0.095), face, view)
            canvas.stroke(np.concatenate([rim, rim[:2]]), (30, 26, 26), 3)
        bridge = np.array([(-0.045, face.eye_height), (0.045, face.eye_height)])
        canvas.stroke(turned(bridge, face, view), (30, 26, 26), 3)
