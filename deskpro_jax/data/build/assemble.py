"""Makes one example of a dataset from its files, each of them inspected and decoded to the last pixel first."""

from __future__ import annotations

import hashlib
import io
from typing import NamedTuple

import numpy as np
from PIL import Image

from deskpro_jax.data.build.checksum_lists import SUMS
from deskpro_jax.data.build.image_sources import Finding, ImageSource, PartsFormat
from deskpro_jax.data.image_colours import turned
from deskpro_jax.data.image_report import MIN_SIDE, ImageReport
from deskpro_jax.data.images import UnreadableError, as_stored, inspect_image, read_file
from deskpro_jax.data.mask_statistics import MaskMeasure, measure
from deskpro_jax.data.masks import LABELS, NEITHER, VOID, WHITE_ON, MaskFile, read_mask
from deskpro_jax.data.schema import SCHEMES, Example

_REMEDY = "write it again, or say what all masks are with --mask-kind"
_SWAPPED = 5  # the first EXIF orientation that swaps height and width


class Assembled(NamedTuple):
    """What became of a source.

    Attributes:
        example: the example, without the parts or faces that can't be used; None if the photo can't be used.
        findings: the files that can't be used.
        remarks: names in `image_report.KINDS` of what is worth knowing about the photo.
        mask: measures of the mask or label map, None where there is none.
    """

    example: Example | None
    findings: tuple[Finding, ...]
    remarks: tuple[str, ...]
    mask: MaskMeasure | None = None


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
    sides = (MIN_SIDE, 1, MIN_SIDE, MIN_SIDE)  # masks and label maps are of any size
    inspected = [_inspect(*file, findings) for file in zip(source.files, sums, sides, strict=True)]
    body, face, restored = (as_stored(*file) if (file := inspected[i]) else None for i in (0, 2, 3))
    report = inspected[0][1] if inspected[0] else None
    parts, measured = _parts(source.parts, inspected[1], parts_format, report, findings)
    if body is None or report is None:
        return Assembled(None, tuple(findings), ())
    labels = (source.identity, source.camera, source.clothes)
    example = Example(source.image_id, body, parts, face, restored, *labels, source.tracklet, source.scale)
    return Assembled(example, tuple(findings), report.remarks, measured)


def _inspect(file: str | None, sha256: str, min_side: int, findings: list[Finding]) -> tuple[bytes, ImageReport] | None:
    """Returns content and report of a usable image file."""
    if file is None:
        return None
    try:
        content = read_file(file)
    except UnreadableError as error:
        findings.append(Finding(file, f" {error}"))
        return None
    if sha256 and hashlib.sha256(content).hexdigest() != sha256:
        findings.append(Finding(file, f" has another checksum than {SUMS} lists: get the file again"))
        return None
    report = inspect_image(content, min_side)
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
) -> tuple[bytes | None, MaskMeasure | None]:
    """Returns the label map of an example as a PNG of mode L, and its measures."""
    if file is None or inspected is None:
        return None, None
    content, report = inspected
    mask = read_mask(content, parts_format.alpha)
    labels = _labels_of_mask(mask, parts_format) if parts_format.masks else _labels(mask, parts_format)
    if isinstance(labels, str):
        findings.append(Finding(file, labels))
        return None, None
    upright = _turned(labels, photo)
    sizes = () if photo is None else (photo.upright_size, photo.read_size)  # they differ for large photos
    if parts_format.same_size and photo is not None and upright.shape not in sizes:
        (height, width), (its_height, its_width) = photo.upright_size, upright.shape
        what = f"{its_width} x {its_height} pixels, its photo {width} x {height}: make both from the same photo"
        findings.append(Finding(file, f" has {what}"))
        return None, None
    measured = measure(upright, SCHEMES[parts_format.scheme].clothing, photo.upright_size) if photo else None
    kept = report.mode == "L" and report.format == "PNG" and report.orientation == 1 and upright is labels
    return (content if kept and not parts_format.masks else _png(Image.fromarray(upright))), measured


def _labels_of_mask(mask: MaskFile, parts_format: PartsFormat) -> np.ndarray | str:
    """Returns the label map of scheme "cloth_mask" of a mask, or why the file is no mask."""
    stated = parts_format.stated
    if mask.content == LABELS and not (stated and len(np.unique(mask.values)) <= 2):
        what = f"a mask, black and white: {_REMEDY}"
        return f" holds numbers up to {int(mask.values.max())} as a label map does, expected {what}"
    if mask.content == NEITHER and not stated:
        return f" {mask.problem}, expected a mask, black on the clothes and white elsewhere, or a label map: {_REMEDY}"
    white = mask.white()
    return (white if parts_format.kind == WHITE_ON else ~white).astype(np.uint8)


def _labels(mask: MaskFile, parts_format: PartsFormat) -> np.ndarray | str:
    """Returns a label map, or why the file is none of the scheme."""
    if mask.labels is None:
        return f" has mode {mask.mode}, expected L (one label per pixel): write it again"
    if mask.lossy:
        return " has labels in a lossy format, which changes them: write them as PNG"
    labels = len(SCHEMES[parts_format.scheme].labels)
    if (highest := int(mask.labels.max())) >= labels:
        is_void = highest == VOID and mask.content == LABELS
        remedy = "write 0, the background, where nothing is labelled" if is_void else "write it again"
        return f" has label {highest}, expected 0 to {labels - 1} (scheme {parts_format.scheme}): {remedy}"
    return mask.labels


def _turned(labels: np.ndarray, photo: ImageReport | None) -> np.ndarray:
    """Turns parts with their photo where their size shows that they were made from the photo as it is stored."""
    if photo is None or photo.orientation < _SWAPPED or labels.shape != (photo.height, photo.width):
        return labels
    if labels.shape[0] == labels.shape[1]:
        return labels
    return np.asarray(turned(Image.fromarray(labels), photo.orientation))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
