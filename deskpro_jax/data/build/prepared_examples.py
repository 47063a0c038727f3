"""Reads examples from prepared folders, and writes them: photos, faces and masks in four trees of files."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deskpro_jax.data.build.assemble import assemble
from deskpro_jax.data.build.image_sources import refuse
from deskpro_jax.data.build.mask_kinds import decide_mask_kind
from deskpro_jax.data.build.prepared_folders import FOLDERS, MANIFEST_COLUMNS, TREES, list_prepared
from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.data.schema import LIP, SCHEMES, Example
from deskpro_jax.errors import InputError
from deskpro_jax.storage.files import atomic_folder


def read_prepared(raw_dir: str | Path, dataset: str) -> Iterator[tuple[str, Example]]:
    """Reads prepared folders, train first, then query, then gallery, each in the order of the names.

    Args:
        raw_dir: folder with imgs/, lr_face/, hr_face/ and mask/.
        dataset: name of the dataset, which decides how files are named.

    Yields:
        Pairs of split name and example; images without a face or mask are normal.

    Raises:
        MissingInputError: a folder is missing.
        InputError: a name does not match, a file is not a readable image, or the files do not fit together.
    """
    listing = list_prepared(Path(raw_dir), find_dataset(dataset))
    refuse(listing.findings, "")
    decide_mask_kind(listing)
    for source in listing.sources:
        assembled = assemble(source, listing.parts_format)
        refuse(assembled.findings, "")
        assert assembled.example is not None
        yield source.split, assembled.example


def write_prepared(
    examples: Iterable[tuple[str, Example]], out_dir: str | Path, dataset: str, origin: dict[str, Any] | None = None
) -> Path:
    """Writes examples as prepared folders, from which building gives the same examples byte for byte.

    Beside the four trees there are `parts/` (label maps), `manifest.csv` and `dataset.json`; the masks are black
    where a label is clothing and white elsewhere.

    Args:
        examples: pairs of split name and example.
        out_dir: A folder that does not exist yet or is empty; it appears when everything is written.
        dataset: name of the dataset, which decides how files are named.
        origin: what dataset.json is to say: label_scheme (default "lip"), masks, faces, seed.

    Returns:
        The folder.

    Raises:
        InputError: the folder has content, or an image's name does not match the dataset's pattern.
    """
    out = Path(out_dir).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} already exists: choose another folder, or empty it")
    origin = {"label_scheme": LIP.name} | (origin or {})
    clothing = SCHEMES[origin["label_scheme"]].clothing
    names = find_dataset(dataset).prepared
    with atomic_folder(out) as part:
        for tree in (*TREES, "parts"):
            for name in FOLDERS.values():
                (part / tree / name).mkdir(parents=True)
        with (part / "manifest.csv").open("w", newline="") as lines:
            manifest = csv.writer(lines)
            manifest.writerow(MANIFEST_COLUMNS)
            for split, e in examples:
                if not re.fullmatch(names.pattern, e.image_id):
                    raise InputError(f"image {e.image_id}: the name does not match {names.expected}")
                _write_example(part, FOLDERS[split], e, clothing)
                manifest.writerow((e.image_id, split, e.identity, e.camera, e.clothes))
        (part / "dataset.json").write_text(json.dumps(origin, indent=2) + "\n")
    return out


def _write_example(root: Path, folder: str, e: Example, clothing: tuple[int, ...]) -> None:
    # The trees share file names; readers go by content, so .jpg holds whatever the bytes are.
    for tree, content in (("imgs", e.body), ("lr_face", e.face), ("hr_face", e.restored_face)):
        if content is not None:
            (root / tree / folder / f"{e.image_id}.jpg").write_bytes(content)
    if e.parts is not None:
        (root / "parts" / folder / f"{e.image_id}.png").write_bytes(e.parts)
        with Image.open(io.BytesIO(e.parts)) as labels:
            mask = np.where(np.isin(np.asarray(labels), clothing), 0, 255).astype(np.uint8)
        Image.fromarray(mask).save(root / "mask" / folder / f"{e.image_id}.jpg", "JPEG", quality=95)


def synthetic_origin(size: str, seed: int) -> dict[str, Any]:
    """Returns the metadata of a drawn dataset: labels, masks, faces and seed."""
    return {
        "label_scheme": LIP.name,
        "masks": "exact part labels, drawn with the image",
        "faces": "cropped from the drawn photo; the restored face is drawn again at high resolution",
        "size": size,
        "seed": seed,
    }
