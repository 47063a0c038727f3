"""The prepared-folders layout: photos, faces and masks in four trees of files that share their names.

`python -m deskpro_jax.data.layouts --size small --seed 0 --out DIR` writes a synthetic dataset in this layout.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deskpro_jax.data import synthetic
from deskpro_jax.data.naming import FOLDERS, TREES, check_prepared, names_of
from deskpro_jax.data.schema import CLOTH_MASK, LIP, SCHEMES, SPLITS, UNKNOWN_CLOTHES, Example
from deskpro_jax.errors import InputError, exit_code

MASK_THRESHOLD = 128  # mask pixels from here up are not clothing
_MANIFEST = ("image_id", "split", "identity", "camera", "clothes")
_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")


def origin(raw_dir: Path) -> dict[str, Any]:
    """Returns what is known about the labels, masks, faces and seed of prepared folders."""
    file = raw_dir / "dataset.json"
    if file.exists():
        try:
            stored = dict(json.loads(file.read_text()))
        except ValueError as error:
            raise InputError(f"{file} is not a JSON object ({error}): write the folders again") from error
        if stored.get("label_scheme") not in SCHEMES:
            raise InputError(
                f"{file}: label_scheme is {stored.get('label_scheme')!r}, expected one of {', '.join(SCHEMES)}"
            )
        return stored
    return {
        "label_scheme": LIP.name if (raw_dir / "parts").is_dir() else CLOTH_MASK.name,
        "masks": "as they came in the prepared folders",
        "faces": "as they came in the prepared folders",
        "seed": None,
    }


def read_prepared(raw_dir: str | Path, dataset: str) -> Iterator[tuple[str, Example]]:
    """Reads prepared folders, train first, then query, then gallery, each in the order of the names.

    Files are passed on byte for byte. With `parts/` and `manifest.csv`, which `write_prepared` adds, labels and
    clothes come from there; without `parts/` the masks become label maps of scheme "cloth_mask"; without
    `manifest.csv` the names give identity and camera, and the clothes are unknown.

    Args:
      raw_dir: Folder with imgs/, lr_face/, hr_face/ and mask/.
      dataset: Name of the dataset; says how files are named.

    Yields:
      Pairs of split name and example; images without a face or mask are normal.

    Raises:
      MissingInputError: If a folder is missing.
      InputError: If a name does not match, a file is no readable image, or the files do not fit together.
    """
    root = Path(raw_dir)
    check_prepared(root, dataset)
    manifest = _read_manifest(root)
    has_parts = (root / "parts").is_dir()
    for split in SPLITS:
        trees = {tree: _files(root / tree / FOLDERS[split], dataset) for tree in TREES}
        if has_parts:
            trees["parts"] = _files(root / "parts" / FOLDERS[split], dataset)
        photos = trees.pop("imgs")
        if not photos:
            raise InputError(f"{root / 'imgs' / FOLDERS[split]} holds no images: put the {split} images there")
        for tree, files in trees.items():
            if files and not files.keys() & photos.keys():
                raise InputError(
                    f"no file in {root / tree / FOLDERS[split]} shares its name with one in "
                    f"{root / 'imgs' / FOLDERS[split]}: the trees must use the same names"
                )
        _check_manifest(root, split, photos, manifest)
        for image_id, photo in photos.items():
            numbers = manifest[split, image_id] if manifest else (*_numbers(image_id, dataset), UNKNOWN_CLOTHES)
            if has_parts:
                parts = _image(trees["parts"].get(image_id), mode="L")
            else:
                parts = _mask_to_parts(trees["mask"].get(image_id))
            body = _image(photo)
            assert body is not None
            face, restored = (_image(trees[tree].get(image_id)) for tree in ("lr_face", "hr_face"))
            yield split, Example(image_id, body, parts, face, restored, *numbers)


def _files(folder: Path, dataset: str) -> dict[str, Path]:
    """Returns the images of a folder by name, each name checked."""
    names = names_of(dataset)
    result: dict[str, Path] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        if file.name.startswith(".") or file.name == "Thumbs.db":
            continue  # left by file managers
        if not re.fullmatch(names.pattern, file.stem) or file.suffix.lower() not in _SUFFIXES:
            raise InputError(
                f"{file}: the name does not match {names.expected}, with one of {', '.join(_SUFFIXES)}: "
                f"rename or remove it (dataset {dataset})"
            )
        if file.stem in result:
            raise InputError(f"{file} and {result[file.stem].name} are the same image: remove one")
        result[file.stem] = file
    return result


def _numbers(image_id: str, dataset: str) -> tuple[int, int]:
    match = re.fullmatch(names_of(dataset).pattern, image_id)
    assert match is not None
    return int(match[1]), int(match[2])


def _image(file: Path | None, mode: str | None = None) -> bytes | None:
    """Returns the content of an image file that was decoded to the end once."""
    if file is None:
        return None
    content = file.read_bytes()
    try:
        with Image.open(io.BytesIO(content)) as image:
            image.load()
            found = image.mode
    except Exception as error:  # Pillow's decoders raise many kinds
        raise InputError(f"{file} is not a readable image ({error}): replace or remove it") from error
    if mode is not None and found != mode:
        raise InputError(f"{file} has mode {found}, expected {mode} (one label a pixel): write it again")
    return content


def _mask_to_parts(file: Path | None) -> bytes | None:
    content = _image(file)
    if content is None:
        return None
    with Image.open(io.BytesIO(content)) as image:
        clothing = np.asarray(image.convert("L")) < MASK_THRESHOLD
    return _png(clothing.astype(np.uint8))


def _png(labels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, "PNG")
    return buffer.getvalue()


def _read_manifest(root: Path) -> dict[tuple[str, str], tuple[int, int, int]]:
    file = root / "manifest.csv"
    if not file.exists():
        return {}
    result = {}
    with file.open(newline="") as lines:
        reader = csv.DictReader(lines)
        if tuple(reader.fieldnames or ()) != _MANIFEST:
            raise InputError(f"{file} has columns {reader.fieldnames}, expected {', '.join(_MANIFEST)}")
        for row in reader:
            try:
                numbers = (int(row["identity"]), int(row["camera"]), int(row["clothes"]))
            except (TypeError, ValueError) as error:
                raise InputError(f"{file}, line {reader.line_num}: {row} has a number missing ({error})") from error
            result[row["split"], row["image_id"]] = numbers
    return result


def _check_manifest(root: Path, split: str, photos: dict[str, Path], manifest: dict[tuple[str, str], Any]) -> None:
    if not manifest:
        return
    listed = {image_id for found, image_id in manifest if found == split}
    if strange := sorted(listed ^ photos.keys()):
        where = "manifest.csv but has no file" if strange[0] in listed else "a file but not in manifest.csv"
        raise InputError(f"{root}: {split} image {strange[0]} is in {where} ({len(strange)} such): write both again")


def write_prepared(
    examples: Iterable[tuple[str, Example]], out_dir: str | Path, dataset: str, origin: dict[str, Any] | None = None
) -> Path:
    """Writes examples as prepared folders, from which building gives the same examples byte for byte.

    Beside the four trees there are `parts/` (label maps), `manifest.csv` and `dataset.json`; the masks are black
    where a label is clothing and white elsewhere.

    Args:
      examples: Pairs of split name and example.
      out_dir: A folder that does not exist yet or is empty; it appears when everything is written.
      dataset: Name of the dataset; says how files are named.
      origin: What dataset.json is to say: label_scheme (default "lip"), masks, faces, seed.

    Returns:
      The folder.

    Raises:
      InputError: If the folder has content, or an image's name does not match the dataset's pattern.
    """
    out = Path(out_dir).expanduser()
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there already: choose another folder, or empty it")
    origin = {"label_scheme": LIP.name} | (origin or {})
    clothing = SCHEMES[origin["label_scheme"]].clothing
    names = names_of(dataset)
    part = out.with_name(f"{out.name}.part-{os.getpid()}")
    try:
        for tree in (*TREES, "parts"):
            for name in FOLDERS.values():
                (part / tree / name).mkdir(parents=True)
        with (part / "manifest.csv").open("w", newline="") as lines:
            manifest = csv.writer(lines)
            manifest.writerow(_MANIFEST)
            for split, e in examples:
                if not re.fullmatch(names.pattern, e.image_id):
                    raise InputError(f"image {e.image_id}: the name does not match {names.expected}")
                _write_example(part, FOLDERS[split], e, clothing)
                manifest.writerow((e.image_id, split, e.identity, e.camera, e.clothes))
        (part / "dataset.json").write_text(json.dumps(origin, indent=2) + "\n")
        if out.exists():
            out.rmdir()
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
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
    """Returns what a drawn dataset says about its labels, masks, faces and seed."""
    return {
        "label_scheme": LIP.name,
        "masks": "exact part labels, drawn with the image",
        "faces": "cropped from the drawn photo; the restored face is drawn again at high resolution",
        "size": size,
        "seed": seed,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes a synthetic dataset as prepared folders; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deskpro_jax.data.layouts", description=main.__doc__)
    parser.add_argument("--size", default="small", help=f"one of {', '.join(synthetic.SIZES)} (default: small)")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn people (default: 0)")
    parser.add_argument("--out", required=True, help="folder to write; must not exist or be empty")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw (default: 0, this one)")
    options = parser.parse_args(arguments)
    try:
        examples = synthetic.generate(options.size, options.seed, options.workers)
        name = f"synthetic_{options.size}"
        out = write_prepared(examples, options.out, name, synthetic_origin(options.size, options.seed))
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    print(f"{name} written to {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
