"""From the detector's output for every anchor to the faces of an image, and to the one of the person."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from data_prep.detection.detect import Raw

SCORE_THRESHOLD = 0.02  # boxes of lower or equal score are dropped before suppression
NMS_THRESHOLD = 0.4
TOP_K = 5000  # boxes that enter suppression
KEEP_TOP_K = 750  # boxes that leave it
# Where the face of the person that a crop shows can be, and how sure the detector must be of it. Centres of faces lie
# at a tenth of the height where the whole person is seen, at a third in a portrait; the sides show other people.
MIN_SCORE = 0.5
HEAD_BOTTOM = 0.4
HEAD_SIDE = 0.1


@dataclass(frozen=True, eq=False)
class Detections:
    """The faces of one image, best first.

    Attributes:
        boxes: left, top, right, bottom in pixels [faces, 4], float32; they may reach beyond the image.
        scores: probability of a face [faces], float32.
        landmarks: x and y of the eyes, the nose and the corners of the mouth in pixels [faces, 5, 2], float32.
    """

    boxes: Float[np.ndarray, "faces 4"]
    scores: Float[np.ndarray, " faces"]
    landmarks: Float[np.ndarray, "faces 5 2"]

    def __len__(self) -> int:
        return len(self.scores)

    def scaled(self, x: float, y: float) -> Detections:
        """Returns them with coordinates multiplied, to be in pixels of the photo instead of the canvas.

        Args:
            x, y: photo pixels a canvas pixel: the photo's width and height over those it was enlarged to.
        """
        scale = np.asarray([x, y], np.float32)
        return Detections(self.boxes * np.tile(scale, 2), self.scores, self.landmarks * scale)


def suppress(
    boxes: Float[np.ndarray, "faces 4"], scores: Float[np.ndarray, " faces"], threshold: float = NMS_THRESHOLD
) -> Int[np.ndarray, " kept"]:
    """Drops boxes that overlap a better one (greedy non-maximum suppression).

    A box reaches from the first to the last pixel in it, so sides are one pixel longer than differences of coordinates.

    Args:
        boxes: left, top, right, bottom in pixels.
        scores: of the boxes.
        threshold: a box stays whose intersection over union with all better ones that stay is at most this.

    Returns:
        Positions of the boxes that stay, best first; of equal scores the earlier box is better.
    """
    left, top, right, bottom = boxes.T
    areas = (right - left + 1) * (bottom - top + 1)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        wide = np.minimum(right[best], right[order]) - np.maximum(left[best], left[order]) + 1
        high = np.minimum(bottom[best], bottom[order]) - np.maximum(top[best], top[order]) + 1
        shared = np.maximum(wide, 0) * np.maximum(high, 0)
        order = order[shared / (areas[best] + areas[order] - shared) <= threshold]
    return np.asarray(kept, np.intp)


def detections(
    raw: Raw,
    *,
    score_threshold: float = SCORE_THRESHOLD,
    nms_threshold: float = NMS_THRESHOLD,
    top_k: int = TOP_K,
    keep_top_k: int = KEEP_TOP_K,
) -> list[Detections]:
    """Returns the faces of every image of a batch.

    Args:
        raw: what `detect_raw` returns, on the host or not.
        score_threshold: boxes must score more.
        nms_threshold: as in `suppress`.
        top_k: how many of the best boxes enter suppression.
        keep_top_k: how many leave it at most.

    Returns:
        For each image its faces in pixels of the canvas, best first; none is a normal result.
    """
    faces = []
    for boxes, scores, landmarks in zip(*(np.asarray(part, np.float32) for part in raw), strict=True):
        (candidates,) = np.nonzero(scores > score_threshold)
        candidates = candidates[np.argsort(-scores[candidates], kind="stable")[:top_k]]
        kept = candidates[suppress(boxes[candidates], scores[candidates], nms_threshold)[:keep_top_k]]
        faces.append(Detections(boxes[kept], scores[kept], landmarks[kept]))
    return faces


def best_face(
    faces: Detections,
    height: float,
    width: float,
    *,
    min_score: float = MIN_SCORE,
    head_bottom: float = HEAD_BOTTOM,
    head_side: float = HEAD_SIDE,
) -> int | None:
    """Chooses the face of the person that a crop shows: the best box whose centre lies where a head can be.

    A detector sees faces in folds of clothes, hands and prints too, and on small crops they may score more than the
    person's own, but they lie lower than a head does.

    Args:
        faces: the crop's faces.
        height, width: of the crop, in the unit of the boxes.
        min_score: boxes must score as much.
        head_bottom: fraction of the height that the head region reaches down to, from the crop's top edge.
        head_side: fraction of the width that the head region leaves out on the left and on the right.

    Returns:
        Position of the face in `faces`, None where no box qualifies.
    """
    centre = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
    x, y = centre[:, 0] / width, centre[:, 1] / height
    head = (y >= 0) & (y <= head_bottom) & (x >= head_side) & (x <= 1 - head_side)
    eligible = np.where(head & (faces.scores >= min_score), faces.scores, -1.0)
    best = int(np.argmax(eligible)) if len(faces) else 0
    return best if len(faces) and eligible[best] >= 0 else None
