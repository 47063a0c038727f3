"""RetinaFace on a batch of canvases: from pixels to a box, a score and landmarks of every anchor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, UInt8

from data_prep.detection.anchors import anchors, decode_boxes, decode_landmarks
from data_prep.detection.load import Detector
from data_prep.detection.model import ANCHORS, STRIDES, RetinaFace, inside_image
from data_prep.detection.preprocess import normalise
from deskpro_jax.models.layers import Dtype


class Raw(NamedTuple):
    """The detector's output for every anchor, in pixels of the canvas; nothing is thresholded or suppressed.

    Attributes:
        boxes: left, top, right, bottom [batch, anchors, 4].
        scores: probability of a face [batch, anchors]; 0 for anchors beyond the image.
        landmarks: x and y of the eyes, the nose and the corners of the mouth [batch, anchors, 5, 2].
    """

    boxes: Array
    scores: Array
    landmarks: Array


def detect_raw(
    detector: Detector,
    variables: Mapping[str, Any],
    images: UInt8[Array, "batch height width 3"],
    sizes: Int[Array, "batch 2"] | None = None,
    *,
    dtype: Dtype = jnp.float32,
) -> Raw:
    """Runs the detector; pure, to be jitted with `detector` fixed, and every image on its own.

    Args:
        detector: decides the variant; its own variables are not read.
        variables: its variables, placed on the devices by the caller.
        images: RGB canvases.
        sizes: height and width in pixels of what each canvas shows in its top left corner (factor times the photo's);
            the rest of the canvas then has no influence. None: images fill their canvases.
        dtype: of the network; its output is decoded in float32.

    Returns:
        Boxes, scores and landmarks of every anchor.
    """
    height, width = images.shape[1:3]
    model = RetinaFace(detector.variant, dtype)
    outputs = model.apply(variables, normalise(images), sizes)
    offsets, logits, marks = (jnp.asarray(output, jnp.float32) for output in outputs)
    priors = jnp.asarray(anchors(height, width))
    scale = jnp.asarray([width, height], jnp.float32)
    scores = jax.nn.softmax(logits, -1)[..., 1]
    if sizes is not None:
        inside = inside_image(sizes, height, width)
        cells = [inside[stride] for stride in STRIDES]
        flat = [jnp.repeat(mask.reshape(mask.shape[0], -1), ANCHORS, 1) for mask in cells if mask is not None]
        scores = jnp.where(jnp.concatenate(flat, 1), scores, 0.0)
    return Raw(
        decode_boxes(offsets, priors) * jnp.tile(scale, 2),
        scores,
        decode_landmarks(marks, priors) * scale,
    )
