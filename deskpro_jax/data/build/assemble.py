"""Makes one example of a dataset from its files, each of them inspected and decoded to the last pixel first."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

from deskpro_jax.data.build.checksum_lists import SUMS
from deskpro_jax.data.build.image_sources import Finding, ImageSource, PartsFormat
from deskpro_jax.data.image_report import ImageReport
from deskpro_jax.data.images import as_stored, inspect_image
from deskpro_jax.data.schema import SCHEMES, Example

MASK_THRESHOLD = 128  # mask pixels from here up are not clothing
_TURNS = {  # EXIF orientations that swap height and width
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Assembled(NamedTuple):
    """What became of a source.

    Attributes:
        example: the example, without the parts or faces that can't be used; None if the photo can't be used.
        findings: the files that can't be used.
        remarks: names in `image_report.KINDS` of what is worth knowing about the photo.
    """

    example: Example | None
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]


def assemble(source: ImageSource, parts_format: PartsFormat) -> Assembled:
    """Reads the files of a source and makes an example of those that can be used.

    Files are passed on byte for byte, but for photos and faces that readers could disagree about
    (`images.as_stored`) and masks, which become label maps of scheme "cloth_mask". A label map with the size of
    a photo that is stored turned is turned with it.

    Args:
        source: the files and labels of one image.
        parts_format: what kind of files the parts are.
    """
    findings: list[Finding] = []
    sums = source.sha256 or ("",) * len(source.files)
    inspected = [_inspect(file, expected, findings) for file, expected in zip(source.files, sums, strict=True)]
    body, face, restored = (as_stored(*file) if (file := inspected[i]) else None for i in (0, 2, 3))
    report = inspected[0][1] if inspected[0] else None
    parts = _parts(source.parts, inspected[1], parts_format, report, findings)
    if body is None or report is None:
        return Assembled(None, tuple(findings), ())
    labels = (source.identity, source.camera, source.clothes)
    example = Example(source.image_id, body, parts, face, restored, *labels)
    return Assembled(example, tuple(findings), report.remarks)


def _inspect(file: str | None, sha256: str, findings: list[Finding]) -> tuple[bytes, ImageReport] | None:
    """Returns content and report of a usable image file."""
    if file is None:
        return None
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        findings.append(Finding(file, f" can't be read ({error.strerror}): replace or remove it"))
        return None
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        findings.append(Finding(file, f" has another checksum than {SUMS} lists: get the file again"))
        return None
    report = inspect_image(content)
    if not report.usable:
        findings.append(Finding(file, f" {report.describe()}"))
        return None
    return content, report


def _parts(
    file: str | None,
    inspected: tuple[bytes, ImageReport] | None,
    parts_format: PartsFormat,
    photo: ImageReport | None,
    findings: list[Finding],
) -> bytes | None:
    """Returns the label map of an example as a PNG of mode L."""
    if file is None or inspected is None:
        return None
    content, report = inspected
    with Image.open(io.BytesIO(content)) as image:
        if parts_format.masks:
            clothing = np.asarray(_turned(ImageOps.exif_transpose(image).convert("L"), photo)) < MASK_THRESHOLD
            return _png(Image.fromarray(clothing.astype(np.uint8)))
        if report.mode != "L":
            findings.append(Finding(file, f" has mode {report.mode}, expected L (one label per pixel): write it again"))
            return None
        labels = len(SCHEMES[parts_format.scheme].labels)
        if (highest := int(np.asarray(image).max())) >= labels:
            expected = f"0 to {labels - 1} (scheme {parts_format.scheme}): write it again"
            findings.append(Finding(file, f" has label {highest}, expected {expected}"))
            return None
        turned = _turned(image, photo)
        if parts_format.same_size and photo is not None and (turned.height, turned.width) != photo.upright_size:
            height, width = photo.upright_size
            what = f"{image.width} x {image.height} pixels, its photo {width} x {height}: make both from the same photo"
            findings.append(Finding(file, f" has {what}"))
            return None
        return content if turned is image else _png(turned)


def _turned(parts: Image.Image, photo: ImageReport | None) -> Image.Image:
    """Turns parts with their photo where their size shows that they were made from the photo as it is stored."""
    if photo is None or photo.orientation not in _TURNS or parts.size != (photo.width, photo.height):
        return parts
    return parts if parts.width == parts.height else parts.transpose(_TURNS[photo.orientation])


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
