"""The pictures of the README, drawn from finished runs: ranked lists, and attention beside clothing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from deskpro_jax.data.images import decode_image
from deskpro_jax.data.load import dataset, pipeline
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.report import attention, ranked
from deskpro_jax.report.opened import Opened, embed, open_data, open_networks, read_kept
from deskpro_jax.report.pictures import overlaid, tinted
from deskpro_jax.report.record import read_record
from deskpro_jax.report.view import make_view

_TILE, _BORDER, _LABEL = (64, 128), 4, 110  # pixels: width and height of a photo, its frame, width of the labels
_RANKS, _PHOTOS = 9, 9
_SAME, _OTHER, _QUERY = "#0072b2", "#e69f00", "#808080"
_BYTES = 300_000  # a page loads it


def ranked_lists(demo: Path) -> bytes:
    """Returns a PNG file: queries with the best, the median and the worst ranking, and what comes first.

    Args:
        demo: a finished workdir.
    """
    opened = _opened(demo)
    view = make_view(opened, read_kept(opened, demo) or embed(opened), None)
    scores = view.score()
    chosen = ranked.choose(scores.average_precision, view.query_labels.identity, 1)
    rows, labels = [], []
    for group, lists in ranked.ranked_lists(view, scores, chosen, _RANKS).items():
        for one in lists:
            tiles = [_framed(_photo(opened.query, one.query), _QUERY)]
            tiles += [
                _framed(_photo(opened.gallery, entry.position), _SAME if entry.right else _OTHER)
                for entry in one.entries
            ]
            rows.append(tiles)
            labels.append(f"{group} query,\nAP {100 * one.average_precision:.0f} %")
    return _png(rows, labels)


def attention_maps(runs: Sequence[tuple[str, Path]], data_dir: Path | None = None) -> bytes:
    """Returns a PNG file: photos, where clothing is on them, and the attention of each run.

    Args:
        runs: label and workdir of each; their networks look at the query photos of the first.
        data_dir: folder of datasets; None for where the first run had them.
    """
    opened = _opened(runs[0][1], data_dir)
    at = attention.choose(opened.query, _PHOTOS)
    photos = [_photo(opened.query, index) for index in at]
    masks = next(pipeline.eval_batches(dataset.subset(opened.query, at), opened.config, len(at), ("cloth_mask",)))
    rows = [photos, [tinted(*pair) for pair in zip(photos, masks["cloth_mask"], strict=True)]]
    maps = [
        attention.attention_maps(open_networks(read_record(run))[0], opened.config, opened.query, at) for _, run in runs
    ]
    low, high = (float(limit([one.attention for one in maps])) for limit in (np.min, np.max))
    rows += [[overlaid(*pair, low, high) for pair in zip(photos, one.attention, strict=True)] for one in maps]
    framed = [[_framed(tile, "white") for tile in row] for row in rows]
    return _png(framed, ["photo", "clothing", *(label for label, _ in runs)])


def _opened(workdir: Path, data_dir: Path | None = None) -> Opened:
    record = read_record(workdir)
    trained, note = open_networks(record)
    where = None if data_dir is None else str(data_dir)
    return open_data(record, trained, note, name=None, data_dir=where, protocol=None)


def _photo(split: ReIDSplit, index: int) -> Image.Image:
    return decode_image(split[int(index)].body)


def _framed(photo: Image.Image, colour: str) -> Image.Image:
    return ImageOps.expand(photo.resize(_TILE, Image.Resampling.LANCZOS), border=_BORDER, fill=colour)


def _png(rows: Sequence[Sequence[Image.Image]], labels: Sequence[str]) -> bytes:
    """Returns rows of pictures with a label on the left of each, as a PNG file of a README's size."""
    width, height = (size + 2 * _BORDER for size in _TILE)
    page = Image.new("RGB", (_LABEL + width * max(len(row) for row in rows), height * len(rows)), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=13)
    for y, (row, label) in enumerate(zip(rows, labels, strict=True)):
        draw.multiline_text((8, y * height + height // 2 - 14), label, fill="black", font=font)
        for x, tile in enumerate(row):
            page.paste(tile, (_LABEL + x * width, y * height))
    for colours in (0, 256, 128, 64, 32):  # as many as fit
        content = io.BytesIO()
        (page.quantize(colours) if colours else page).save(content, "PNG", optimize=True)
        if content.tell() <= _BYTES:
            break
    return content.getvalue()
