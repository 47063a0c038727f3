"""What the review page shows of one photo: small images as data URIs, and figures."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_prep.records import Row
from data_prep.reviewing.colours import KINDS, PartKind
from data_prep.settings import STAGES
from data_prep.stages.stage import output_path
from data_prep.table import OK
from deskpro_jax.data.image_report import KINDS as KIND_OF
from deskpro_jax.data.images import UnreadableError, read_pixels

BODY_SIDE, FACE_SIDE = 320, 160  # pixels at most, so that a page of any photos stays small
_BODY_QUALITY, _FACE_QUALITY = 80, 85  # of JPEG
_OTHERS = 5  # boxes beside the face's own that are drawn
DONE, NOTHING, OUTSIDE, FAILED, NOT_RUN = "done", "nothing", "outside", "failed", "not run"
STATUSES = {
    DONE: "has a result",
    NOTHING: "nothing found",
    OUTSIDE: "faces, none in the head region",
    FAILED: "could not be used",
    NOT_RUN: "not done yet",
}


def card(row: Row, folder: Path, images: Path, kinds: Sequence[PartKind]) -> dict[str, Any]:
    """Returns the template values of a photo.

    Args:
        row: of the table.
        folder: the output folder.
        images: the folder of the photos.
        kinds: of each part label, see `colours.kinds`; empty where there are no label maps.
    """
    notes = [row["status"]] if row["status"] != OK else []
    notes += [f"{KIND_OF[name].text}: {KIND_OF[name].remedy}" for name in row["remarks"] or ()]
    result: dict[str, Any] = {
        "name": row["image"],
        "width": row["width"],
        "height": row["height"],
        "score": row["score"],
        "face_height": row["face_height"],
        "scale": row["detector_scale"],
        "statuses": _statuses(row),
        "box": row["box"],
        "points": np.reshape(row["landmarks"], (5, 2)).tolist() if row["landmarks"] else [],
        "others": _others(row),
        "found": len(row["boxes"] or ()),
        "notes": notes,
    }
    if row["status"] == OK:
        try:
            photo = Image.fromarray(read_pixels(images / row["image"]))
            result["body"] = _jpeg(photo, BODY_SIDE, _BODY_QUALITY)
            if row["has_parts"] and kinds:
                labels = _open(output_path(folder, "parts", row["image"]), "L")
                result["mask"], result["shares"] = _mask(labels, kinds)
                if not result["shares"]:  # all background
                    result["statuses"][STAGES[0]] = NOTHING
            if row["restorer"]:
                for name in ("face", "restored_face"):
                    face = _open(output_path(folder, name, row["image"]), "RGB")
                    result[name] = _jpeg(face, FACE_SIDE, _FACE_QUALITY)
        except UnreadableError as error:
            notes.append(str(error))
    return result


def _statuses(row: Row) -> dict[str, str]:
    """Returns for each stage how it went for a photo."""
    parse, detect, restore = STAGES
    nothing = OUTSIDE if row["faces_outside_head"] else NOTHING
    found = {
        parse: DONE if row["has_parts"] else NOT_RUN,
        detect: NOT_RUN if not row["detector"] else DONE if row["has_face"] else nothing,
        restore: DONE if row["restorer"] else NOTHING if row["detector"] and not row["has_face"] else NOT_RUN,
    }
    if row["status"] == OK:
        return found
    return {stage: status if status == DONE else FAILED for stage, status in found.items()}


def _others(row: Row) -> list[list[float]]:
    """Returns the best boxes that are not the person's face, each with its score."""
    boxes = [list(box) for box in row["boxes"] or () if row["box"] is None or list(box[:4]) != list(row["box"])]
    return sorted(boxes, key=lambda box: -box[4])[:_OTHERS]


def _open(path: Path, mode: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
    except Exception as error:  # Pillow's decoders raise many kinds
        reason = "is missing" if isinstance(error, FileNotFoundError) else "cannot be read"
        raise UnreadableError(f"{path.parent.name}/.../{path.name} {reason}") from error
    if image.mode != mode:
        raise UnreadableError(f"{path.name} has mode {image.mode}, expected {mode}")
    return image


def _mask(labels: Image.Image, kinds: Sequence[PartKind]) -> tuple[str, list[tuple[PartKind, float]]]:
    """Returns a transparent PNG of the kinds of parts, and the share of the photo that each kind covers."""
    table = np.full(256, KINDS.index(KINDS[-1]), np.uint8)
    table[: len(kinds)] = [KINDS.index(kind) for kind in kinds]
    whole = table[np.asarray(labels)]
    counts = np.bincount(whole.ravel(), minlength=len(KINDS)) / whole.size
    small = Image.fromarray(table[np.asarray(_shrink(labels, BODY_SIDE, Image.Resampling.NEAREST))])
    small.putpalette(b"".join(bytes.fromhex(kind.colour[1:]) for kind in KINDS))
    buffer = io.BytesIO()
    small.save(buffer, "PNG", transparency=0, optimize=True)
    shares = [(kind, float(share)) for kind, share in zip(KINDS, counts, strict=True) if share and kind is not KINDS[0]]
    return _uri("png", buffer), shares


def _jpeg(image: Image.Image, side: int, quality: int) -> str:
    buffer = io.BytesIO()
    _shrink(image, side, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=quality)
    return _uri("jpeg", buffer)


def _shrink(image: Image.Image, side: int, how: Image.Resampling) -> Image.Image:
    scale = side / max(image.size)
    if scale >= 1:
        return image
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))), how)


def _uri(kind: str, buffer: io.BytesIO) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
