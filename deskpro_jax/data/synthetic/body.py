"""Draws the body below the head: limbs, trunk, clothes, shoes, from the back to the front."""

from __future__ import annotations

import numpy as np

from deskpro_jax.data.synthetic import labels
from deskpro_jax.data.synthetic.canvas import Canvas, Paint, darker, ellipse, limb, smooth
from deskpro_jax.data.synthetic.clothes import Garment, Outfit
from deskpro_jax.data.synthetic.person import Person
from deskpro_jax.data.synthetic.pose import BodyView, Joints


def sided(view: BodyView, k: int, left: int, right: int) -> int:
    """Label of the limb on image side k (0 left, 1 right): a person facing us has the right arm on the left."""
    return left if (k == 1) != view.back else right


def _between(start: np.ndarray, end: np.ndarray, share: float) -> np.ndarray:
    return start + (end - start) * share


def _chain(
    canvas: Canvas, joints: tuple[np.ndarray, ...], radii: tuple[float, ...], reach: float, paint: Paint, label: int
) -> None:
    """Draws a limb of two bones up to a share of its whole length (0 to 1)."""
    first = min(1.0, 2 * reach)
    end = _between(joints[0], joints[1], first)
    r_end = radii[0] + (radii[1] - radii[0]) * first
    canvas.fill(limb(joints[0], end, radii[0], r_end), paint, label)
    if reach > 0.5:
        second = 2 * reach - 1
        end = _between(joints[1], joints[2], second)
        canvas.fill(limb(joints[1], end, radii[1], radii[1] + (radii[2] - radii[1]) * second), paint, label)


def _trunk(joints: Joints, widen: float, hem_y: float, flare: float = 1.0) -> np.ndarray:
    """Outline of what covers the trunk from the shoulders to a hem, pixels [n, 2]."""
    neck, pelvis = joints.neck, joints.pelvis
    shoulder_y = joints.shoulder_y
    waist_y = shoulder_y + 0.62 * (pelvis[1] - shoulder_y)
    collar = 0.20 * joints.unit

    def axis(y: float) -> float:
        return float(neck[0] + (pelvis[0] - neck[0]) * (y - neck[1]) / (pelvis[1] - neck[1]))

    shoulder, waist, hip = joints.shoulder_half, joints.waist_half * widen, joints.hip_half * widen
    waist = max(waist, 0.55 * shoulder)
    rows = [
        (neck[1] - 0.06 * joints.unit, collar),
        (shoulder_y - 0.012 * joints.body, shoulder * 0.72 + 0.2 * collar),
        (shoulder_y + 0.012 * joints.body, shoulder + 0.002 * joints.body * widen),
        (shoulder_y + 0.075 * joints.body, shoulder * 0.93 * widen),
        (waist_y, waist),
        (pelvis[1] - 0.03 * joints.body, hip),
    ]
    if hem_y > pelvis[1] - 0.02 * joints.body:
        rows.append((hem_y, hip * flare))
    right = np.array([(axis(y) + half, y) for y, half in rows])
    left = np.array([(axis(y) - half, y) for y, half in rows])
    return np.concatenate([smooth(right, 4, False), smooth(left, 4, False)[::-1]])


def _draw_legs(canvas: Canvas, person: Person, view: BodyView, joints: Joints, outfit: Outfit) -> None:
    build, body = person.build, joints.body
    radii = (build.thigh * body, 0.5 * (build.thigh + build.calf) * body * 0.82, 0.55 * build.calf * body)
    floor = joints.ankles[:, 1] + 0.035 * body
    for k in np.argsort(joints.ankles[:, 1]):  # the nearer foot is lower in the image
        side = 2 * k - 1
        chain = (joints.hips[k], joints.knees[k], joints.ankles[k])
        leg = sided(view, k, labels.LEFT_LEG, labels.RIGHT_LEG)
        shoe = sided(view, k, labels.LEFT_SHOE, labels.RIGHT_SHOE)
        _chain(canvas, chain, radii, 1.0, person.skin, leg)
        calf = limb(joints.knees[k], joints.ankles[k], radii[1], radii[2])
        canvas.shade(calf, darker(person.skin, 0.8), 0.18)
        if outfit.socks:
            sock = _between(joints.knees[k], joints.ankles[k], 0.55)
            canvas.fill(limb(sock, joints.ankles[k], radii[2] * 1.25, radii[2] * 1.05), outfit.socks, labels.SOCKS)
        toe = side * np.sin(joints.toes[k]) * (-1 if view.back else 1) * 0.045 * body
        if view.back:
            toe = -toe * 0.6
        width, y = 0.020 * body, floor[k]
        foot = joints.ankles[k]
        sole = np.array(
            [
                (foot[0] - width * 0.72, foot[1] - 0.012 * body),
                (foot[0] + width * 0.72, foot[1] - 0.012 * body),
                (foot[0] + width + max(toe, 0), y - 0.010 * body),
                (foot[0] + width * 0.8 + toe, y + 0.006 * body),
                (foot[0] - width * 0.8 + toe, y + 0.006 * body),
                (foot[0] - width + min(toe, 0), y - 0.010 * body),
            ]
        )
        shape = smooth(sole, 4)
        canvas.fill(shape + np.array([0, 0.007 * body]), outfit.sole, shoe)
        canvas.fill(shape, outfit.shoe, shoe)
        if outfit.shoe_height:
            top = _between(joints.ankles[k], joints.knees[k], 0.65 * outfit.shoe_height)
            canvas.fill(limb(top, foot, radii[2] * 1.5, radii[2] * 1.25), outfit.shoe, shoe)


def _draw_trousers(canvas: Canvas, person: Person, joints: Joints, outfit: Outfit, label: int) -> None:
    build, body, loose = person.build, joints.body, outfit.leg_looseness
    thigh = max(build.thigh * loose**0.4, 0.5 * build.hips) * body
    radii = (thigh, 0.5 * (build.thigh + build.calf) * body * 0.88 * loose, 0.72 * build.calf * body * loose**1.5)
    for k in np.argsort(joints.ankles[:, 1]):
        chain = (joints.hips[k], joints.knees[k], joints.ankles[k])
        _chain(canvas, chain, radii, outfit.leg, outfit.lower.texture, label)
        seam = np.array([joints.hips[k], joints.knees[k]])
        canvas.stroke(seam, (0, 0, 0), 2, 0.12)
    hip, y = joints.hip_half * 1.04, joints.pelvis[1]
    x = joints.pelvis[0]
    top = np.array(
        [(x - hip, y - 0.05 * body), (x + hip, y - 0.05 * body), (x + hip, y), (x, y + 0.07 * body), (x - hip, y)]
    )
    canvas.fill(top, outfit.lower.texture, label)


def _draw_skirt(canvas: Canvas, joints: Joints, outfit: Outfit, label: int) -> None:
    x, y = joints.pelvis
    hip = joints.hip_half * 1.05
    hem_y = y + outfit.leg * (joints.ankles[:, 1].max() - y)
    spread = max(hip * (1 + 0.5 * outfit.leg * outfit.leg_looseness), 0.6 * float(np.ptp(joints.ankles[:, 0])) + 3)
    top = y - 0.05 * joints.body
    shape = np.array(
        [
            (x - hip * 0.9, top),
            (x + hip * 0.9, top),
            (x + hip, y),
            (x + spread, hem_y),
            (x - spread, hem_y),
            (x - hip, y),
        ]
    )
    canvas.fill(shape, outfit.lower.texture, label)
    for share in (-0.5, -0.1, 0.35):
        canvas.stroke(np.array([(x + share * hip, y), (x + share * spread, hem_y)]), (0, 0, 0), 2, 0.15)


def _draw_arm(
    canvas: Canvas, person: Person, view: BodyView, joints: Joints, outfit: Outfit, k: int, coat: bool = False
) -> None:
    """One arm with its sleeve; with a coat, only the coat's sleeve and the hand over it."""
    arm, body = person.build.arm * joints.body, joints.body
    chain = (joints.shoulders[k], joints.elbows[k], joints.wrists[k])
    label = sided(view, k, labels.LEFT_ARM, labels.RIGHT_ARM)
    fore = joints.wrists[k] - joints.elbows[k]
    hand = joints.wrists[k] + fore / (np.hypot(*fore) + 1e-6) * 0.022 * body
    canvas.fill(limb(joints.wrists[k], hand, 0.75 * arm, 0.95 * arm), person.skin, label)
    if not coat:
        _chain(canvas, chain, (arm * 1.15, arm, 0.72 * arm), 1.0, person.skin, label)
    if outfit.gloves:
        canvas.fill(limb(joints.wrists[k], hand, 0.95 * arm, 1.1 * arm), outfit.gloves, labels.GLOVE)
    garment, cover, reach = outfit.top, top_label(outfit), outfit.sleeve
    loose = outfit.sleeve_looseness
    if coat and outfit.coat:
        garment, cover, reach, loose = outfit.coat, labels.COAT, 0.98, loose * 1.1
    if reach > 0:
        radii = (arm * 1.15 * loose**0.4, arm * loose, 0.8 * arm * loose)
        _chain(canvas, chain, radii, reach, garment.texture, cover)
        canvas.stroke(np.array(chain[: 2 if reach <= 0.5 else 3]), (0, 0, 0), 2, 0.10)


def top_label(outfit: Outfit) -> int:
    """Part label of what covers the trunk."""
    return {"dress": labels.DRESS, "jumpsuit": labels.JUMPSUIT, "": labels.UPPER}[outfit.whole]


def _draw_trim(canvas: Canvas, view: BodyView, joints: Joints, outfit: Outfit, hem_y: float) -> None:
    if view.back or not outfit.trim:
        return
    label, colour = top_label(outfit), outfit.top.trim
    x, top = joints.neck[0] + 0.3 * joints.shoulder_half * np.sin(view.body_yaw), joints.shoulders[0, 1]
    if outfit.trim == "print":
        size = 0.45 * joints.shoulder_half
        canvas.fill(
            ellipse(x, top + 0.10 * joints.body, size, size * 0.8, count=5 + outfit.hat_kind * 4), colour, label
        )
    elif outfit.trim == "zip":
        canvas.fill(np.array([(x - 0.6, top), (x + 0.6, top), (x + 0.6, hem_y), (x - 0.6, hem_y)]), colour, label)
    else:
        for y in np.arange(top + 2, hem_y - 2, 0.035 * joints.body):
            canvas.fill(ellipse(x, y, 0.9, 0.9, count=8), colour, label)


def _draw_coat(canvas: Canvas, person: Person, view: BodyView, joints: Joints, outfit: Outfit, coat: Garment) -> None:
    length = joints.ankles[:, 1].max() - joints.pelvis[1]
    hem_y = joints.pelvis[1] + outfit.coat_length * length
    shape = _trunk(joints, outfit.looseness * 1.10, hem_y, 1.0 + 0.4 * outfit.coat_length)
    if view.back or not outfit.coat_open:
        canvas.fill(shape, coat.texture, labels.COAT)
        if not view.back:
            x = joints.pelvis[0] + 0.25 * joints.shoulder_half * np.sin(view.body_yaw)
            canvas.stroke(np.array([(joints.neck[0], joints.neck[1]), (x, hem_y)]), coat.trim, 2, 0.8)
    else:
        middle = len(shape) // 2
        shift = 0.25 * joints.shoulder_half * np.sin(view.body_yaw)
        for side, half in ((1, shape[:middle]), (-1, shape[middle:])):
            centre = np.interp(half[:, 1], [joints.neck[1], joints.pelvis[1]], [joints.neck[0], joints.pelvis[0]])
            gap = np.interp(half[:, 1], [half[:, 1].min(), half[:, 1].max()], [0.22, 0.42]) * joints.shoulder_half
            inner = np.stack([centre + shift + side * gap, half[:, 1]], axis=1)[::-1]
            canvas.fill(np.concatenate([half, inner]), coat.texture, labels.COAT)
            canvas.stroke(inner, (0, 0, 0), 2, 0.25)
    for k in (0, 1):
        _draw_arm(canvas, person, view, joints, outfit, k, coat=True)


def draw_body(canvas: Canvas, person: Person, view: BodyView, joints: Joints, outfit: Outfit) -> None:
    """Draws a dressed body without its head.

    Args:
        canvas: in pixels of the body image.
        person: the identity, as seen on the day.
        view: viewpoint.
        joints: posture.
        outfit: clothes.
    """
    unit, neck, head = joints.unit, joints.neck, joints.head
    label = top_label(outfit)
    _draw_legs(canvas, person, view, joints, outfit)
    half = person.build.neck_width * unit
    top = head[1] + 0.25 * unit
    column = np.array(
        [
            (head[0] - half, top),
            (head[0] + half, top),
            (neck[0] + 1.25 * half, neck[1] + 2),
            (neck[0] - 1.25 * half, neck[1] + 2),
        ]
    )
    arms = [0, 1] if joints.wrists[0, 1] < joints.wrists[1, 1] else [1, 0]
    _draw_arm(canvas, person, view, joints, outfit, arms[0])
    if outfit.whole == "dress" or (outfit.bottom == "skirt" and not outfit.whole):
        _draw_skirt(canvas, joints, outfit, label if outfit.whole else labels.SKIRT)
    else:
        _draw_trousers(canvas, person, joints, outfit, label if outfit.whole else labels.PANTS)
    leg = joints.ankles[:, 1].max() - joints.pelvis[1]
    hem_y = joints.pelvis[1] + (0.02 if outfit.whole else outfit.hem) * leg
    canvas.fill(_trunk(joints, outfit.looseness, hem_y, 1.03), outfit.top.texture, label)
    _draw_trim(canvas, view, joints, outfit, hem_y)
    canvas.fill(column, darker(person.skin, 0.84), labels.NECK)
    if not view.back:
        depth = outfit.neckline * unit
        low = np.array([(neck[0] - 1.1 * half, neck[1]), (neck[0] + 1.1 * half, neck[1])])
        tip = (
            [(neck[0], neck[1] + depth + 2)]
            if outfit.v_neck
            else [(neck[0] + 0.6 * half, neck[1] + depth), (neck[0] - 0.6 * half, neck[1] + depth)]
        )
        canvas.fill(np.concatenate([low, np.array(tip)]), darker(person.skin, 0.9), labels.NECK)
    _draw_arm(canvas, person, view, joints, outfit, arms[1])
    if outfit.coat:
        _draw_coat(canvas, person, view, joints, outfit, outfit.coat)
    if outfit.bag:
        _draw_bag(canvas, view, joints, outfit)
    if outfit.scarf:
        canvas.fill(
            ellipse(neck[0], neck[1] + 0.02 * unit, 1.7 * half, 0.17 * unit), outfit.scarf.texture, labels.SCARF
        )
        if not view.back:
            tail = np.array(
                [
                    (neck[0] - 0.3 * half, neck[1]),
                    (neck[0] + 0.9 * half, neck[1]),
                    (neck[0] + half, neck[1] + 1.1 * unit),
                    (neck[0], neck[1] + 1.1 * unit),
                ]
            )
            canvas.fill(tail, outfit.scarf.texture, labels.SCARF)


def _draw_bag(canvas: Canvas, view: BodyView, joints: Joints, outfit: Outfit) -> None:
    colour = outfit.bag
    if colour is None:
        return
    k, body = outfit.bag_side, joints.body
    if view.back:  # a rucksack
        x, y = joints.neck[0], joints.shoulders[0, 1]
        w = 0.75 * joints.shoulder_half
        canvas.fill(
            smooth(np.array([(x - w, y), (x + w, y), (x + w, y + 0.21 * body), (x - w, y + 0.21 * body)]), 4),
            colour,
            labels.BAG,
        )
        return
    strap = np.array(
        [
            joints.shoulders[k] * (0.6, 1) + joints.neck * (0.4, 0),
            joints.shoulders[k] * (0.6, 1) + joints.neck * (0.4, 0) + (2, 0),
        ]
    )
    hang = joints.pelvis + np.array([(2 * k - 1) * joints.hip_half * 1.25, 0.02 * body])
    band = np.concatenate([strap, hang + np.array([(1, -4), (-1, -4)])])
    canvas.fill(band, darker(colour, 0.8), labels.BAG)
    w, h = 0.045 * body, 0.05 * body
    canvas.fill(smooth(hang + np.array([(-w, -h), (w, -h), (w, h), (-w, h)]), 4), colour, labels.BAG)
