"""Draws one image of a person: body picture, part labels, the face cut out of it, and the same face drawn crisply."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
from PIL import Image

from deskpro_jax.data.synthetic import labels
from deskpro_jax.data.synthetic.body import draw_body
from deskpro_jax.data.synthetic.camera import Camera, encode_jpeg, photograph, sample_exposure
from deskpro_jax.data.synthetic.canvas import Canvas
from deskpro_jax.data.synthetic.clothes import sample_outfit
from deskpro_jax.data.synthetic.head import draw_back_hair, draw_head
from deskpro_jax.data.synthetic.person import Person, on_the_day
from deskpro_jax.data.synthetic.pose import HEIGHT, WIDTH, Joints, sample_joints, sample_view
from deskpro_jax.data.synthetic.scene import draw_background, light

RESTORED_SIZE = 112  # pixels
FRAMING = (1.08, 1.36)  # side of the square face crop, face heights
_SUPERSAMPLING = 2  # canvas pixels a body pixel
_PATCH_UNIT = 112  # pixels a face height in the head drawn at high resolution
_PATCH_HALF = (140, 150)  # half width and half height of that drawing
_FRAME_CENTRE = -0.06  # of the face crop, face heights below the centre of the face


@dataclasses.dataclass(frozen=True)
class Rendering:
    """The encoded images of one example; the faces are None on a back view."""

    body: bytes
    parts: bytes
    face: bytes | None
    restored_face: bytes | None


def _paste_head(canvas: Canvas, patch: Canvas, joints: Joints) -> tuple[float, float, float]:
    """Puts the head drawn at high resolution on the body.

    Returns:
        Canvas coordinates (left, top) of the patch and its scale (canvas pixels a patch pixel).
    """
    scale = _SUPERSAMPLING * joints.unit / _PATCH_UNIT
    size = (round(2 * _PATCH_HALF[0] * scale), round(2 * _PATCH_HALF[1] * scale))
    left = round(_SUPERSAMPLING * joints.head[0] - size[0] / 2)
    top = round(_SUPERSAMPLING * joints.head[1] - size[1] / 2)
    covered = patch.labels.point([0 if value == labels.NOTHING else 255 for value in range(256)])
    cut_out = patch.colour.copy()
    cut_out.putalpha(covered)
    small = cut_out.resize(size, Image.Resampling.BOX)
    canvas.colour.paste(small, (left, top), small)
    small_labels = patch.labels.resize(size, Image.Resampling.NEAREST)
    mask = covered.resize(size, Image.Resampling.NEAREST)
    canvas.labels.paste(small_labels, (left, top), mask)
    return left, top, size[0] / (2 * _PATCH_HALF[0])


def _face_box(joints: Joints, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """Square around the face, as a detector finds it, in pixels of the body image and wholly inside it."""
    side = round(rng.uniform(*FRAMING) * joints.unit)
    x, y = joints.head + joints.unit * (rng.normal(0, 0.06, 2) + np.array([0.0, _FRAME_CENTRE]))
    left = min(max(round(x - side / 2), 0), WIDTH - side)
    top = min(max(round(y - side / 2), 0), HEIGHT - side)
    return left, top, left + side, top + side


def _restored(
    canvas: Canvas, patch: Canvas, box: tuple[int, int, int, int], placed: tuple[float, float, float]
) -> Image.Image:
    """The face crop as drawn, without blur and noise: the crisp head over what the canvas shows around it."""
    size = (RESTORED_SIZE, RESTORED_SIZE)
    x0, y0, x1, y1 = (float(_SUPERSAMPLING * v) for v in box)
    around = canvas.colour.resize(size, Image.Resampling.BICUBIC, box=(x0, y0, x1, y1))
    left, top, scale = placed
    # Sampling by a transform, unlike a resize with a box, may reach over the edge of the patch (it is empty there).
    step = (x1 - x0) / scale / RESTORED_SIZE
    covered = patch.labels.point([0 if value == labels.NOTHING else 255 for value in range(256)])
    matrix = (step, 0.0, (x0 - left) / scale, 0.0, step, (y0 - top) / scale)
    crisp = patch.colour.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    mask = covered.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
    around.paste(crisp, (0, 0), mask)
    return around


def render(person: Person, camera: Camera, rng: np.random.Generator) -> Rendering:
    """Draws a person in new clothes, in a new place.

    Args:
        person: the identity.
        camera: the camera that takes the picture.
        rng: the image's own source of randomness.

    Returns:
        Body (JPEG, 256 x 128), parts (PNG, LIP labels, same size), face (PNG, cut out of the body picture) and
        restored face (JPEG, 112 x 112, same framing).
    """
    view = sample_view(person, rng)
    joints = sample_joints(person, view, rng)
    person = on_the_day(person, rng)
    size = (_SUPERSAMPLING * WIDTH, _SUPERSAMPLING * HEIGHT)
    outfit = sample_outfit(rng, size)

    background = draw_background(rng).resize(size, Image.Resampling.BILINEAR)
    canvas = Canvas(background, labels.BACKGROUND, scale=_SUPERSAMPLING)
    head_place = (_SUPERSAMPLING * joints.head[0], _SUPERSAMPLING * joints.head[1])
    if not view.back:
        behind = Canvas(background, canvas.labels, _SUPERSAMPLING * joints.unit, head_place, view.roll)
        draw_back_hair(behind, person, view)
    draw_body(canvas, person, view, joints, outfit)
    patch_image = Image.new("RGB", (2 * _PATCH_HALF[0], 2 * _PATCH_HALF[1]))
    patch = Canvas(patch_image, labels.NOTHING, _PATCH_UNIT, _PATCH_HALF, view.roll)
    draw_head(patch, person, view, outfit)
    placed = _paste_head(canvas, patch, joints)

    drawn = np.asarray(canvas.labels)[_SUPERSAMPLING // 2 :: _SUPERSAMPLING, _SUPERSAMPLING // 2 :: _SUPERSAMPLING]
    pixels = np.asarray(canvas.colour.reduce(_SUPERSAMPLING), np.float32)
    cloth = (drawn >= labels.UPPER) & (drawn <= labels.SKIRT)
    exposure = sample_exposure(camera, rng)
    body = photograph(light(pixels, drawn > 0, cloth, rng), camera, exposure, rng)
    buffer = io.BytesIO()
    Image.fromarray(labels.to_lip(drawn)).save(buffer, "PNG", compress_level=4)
    if view.back:
        return Rendering(body, buffer.getvalue(), None, None)

    box = _face_box(joints, rng)
    face_file = io.BytesIO()
    Image.open(io.BytesIO(body)).crop(box).save(face_file, "PNG", compress_level=4)
    restored = Image.fromarray(exposure.apply(np.asarray(_restored(canvas, patch, box, placed), np.float32)))
    return Rendering(body, buffer.getvalue(), face_file.getvalue(), encode_jpeg(restored, 95, full_colour=True))
