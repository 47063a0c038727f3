"""Small datasets laid out as their authors do, with what every file name means worked out by hand.

`write(name, root)` makes the tree of one dataset from tiny drawn people; `TREES[name]` says what it holds. Oddities on
purpose: image numbers 1 and 10 of one person (celeb), test identities that share their numbers with train identities
(all but ltcc), file names that repeat in every folder (prcc), clothes numbered anew for every person (ltcc and
vc_clothes).
"""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

import video_trees

HEIGHT, WIDTH, FACE = 64, 32, 24


class Photo(NamedTuple):
    """What a built dataset is to hold of one file."""

    split: str
    image_id: str
    identity: int
    camera: int
    clothes: int


def _flat(split: str, folder: str, rows: Iterable[tuple[str, int, int, int]]) -> dict[str, Photo]:
    return {f"{folder}/{name}": Photo(split, name.rsplit(".", 1)[0], *labels) for name, *labels in rows}


CELEB = {
    **_flat("train", "train", [
        ("1_1_0.jpg", 1, 1, -1), ("1_2_0.jpg", 1, 2, -1), ("1_10_0.jpg", 1, 10, -1),
        ("2_1_0.jpg", 2, 1, -1), ("2_2_7.jpg", 2, 2, -1), ("3_1_0.jpg", 3, 1, -1), ("3_2_0.jpg", 3, 2, -1),
    ]),
    # Person 1 of the test splits is not person 1 of train. Image numbers 1 and 10 start with the same digit.
    **_flat("query", "query", [("1_1_0.jpg", 1, 1, -1), ("2_3_0.jpg", 2, 3, -1)]),
    **_flat("gallery", "gallery", [
        ("1_10_0.jpg", 1, 10, -1), ("1_11_0.jpg", 1, 11, -1), ("2_1_0.jpg", 2, 1, -1), ("2_2_0.jpg", 2, 2, -1),
        ("2_20_0.jpg", 2, 20, -1),
    ]),
}  # fmt: skip
# Every image of a person shows other clothes, so the image number is the outfit's too.
CELEB_LIGHT = {path: photo._replace(clothes=photo.camera) for path, photo in CELEB.items()}
PRCC = {
    "rgb/train/001/A_cropped_rgb001.jpg": Photo("train", "001_A_cropped_rgb001", 1, 0, 0),
    "rgb/train/001/B_cropped_rgb001.jpg": Photo("train", "001_B_cropped_rgb001", 1, 1, 0),
    "rgb/train/001/C_cropped_rgb001.jpg": Photo("train", "001_C_cropped_rgb001", 1, 2, 1),
    "rgb/train/004/A_cropped_rgb001.jpg": Photo("train", "004_A_cropped_rgb001", 4, 0, 0),
    "rgb/train/004/C_cropped_rgb002.jpg": Photo("train", "004_C_cropped_rgb002", 4, 2, 1),
    "rgb/test/A/001/cropped_rgb001.jpg": Photo("gallery", "001_A_cropped_rgb001", 1, 0, 0),
    "rgb/test/A/001/cropped_rgb002.jpg": Photo("gallery", "001_A_cropped_rgb002", 1, 0, 0),
    "rgb/test/A/005/cropped_rgb001.jpg": Photo("gallery", "005_A_cropped_rgb001", 5, 0, 0),
    "rgb/test/B/001/cropped_rgb001.jpg": Photo("query", "001_B_cropped_rgb001", 1, 1, 0),
    "rgb/test/B/005/cropped_rgb001.jpg": Photo("query", "005_B_cropped_rgb001", 5, 1, 0),
    "rgb/test/C/001/cropped_rgb001.jpg": Photo("query", "001_C_cropped_rgb001", 1, 2, 1),
    "rgb/test/C/005/cropped_rgb003.jpg": Photo("query", "005_C_cropped_rgb003", 5, 2, 1),
}
PRCC_VAL = {
    "rgb/val/001/A_cropped_rgb009.jpg": Photo("train", "val_001_A_cropped_rgb009", 1, 0, 0),
    "rgb/val/004/C_cropped_rgb009.jpg": Photo("train", "val_004_C_cropped_rgb009", 4, 2, 1),
}
LTCC = {
    **_flat("train", "train", [
        ("001_1_c1_000001.png", 1, 1, 1), ("001_1_c2_000002.png", 1, 2, 1), ("001_2_c1_000003.png", 1, 1, 2),
        ("007_1_c3_000004.png", 7, 3, 1), ("007_2_c12_000005.png", 7, 12, 2),
    ]),
    # 003 wears outfits 1 and 2. The gallery has 005 in its query's outfit alone: no match when clothes must differ.
    **_flat("query", "query", [
        ("003_1_c1_000010.png", 3, 1, 1), ("003_2_c2_000011.png", 3, 2, 2), ("005_1_c1_000012.png", 5, 1, 1),
    ]),
    **_flat("gallery", "test", [
        ("003_1_c1_000020.png", 3, 1, 1), ("003_1_c2_000021.png", 3, 2, 1), ("003_2_c3_000022.png", 3, 3, 2),
        ("005_1_c2_000023.png", 5, 2, 1), ("009_1_c4_000024.png", 9, 4, 1),
    ]),
}  # fmt: skip
VC_CLOTHES = {
    **_flat("train", "train", [
        ("0001-01-01-01.jpg", 1, 1, 1), ("0001-02-01-01.jpg", 1, 2, 1), ("0001-04-02-01.jpg", 1, 4, 2),
        ("0002-03-01-01.jpg", 2, 3, 1), ("0002-03-01-02.jpg", 2, 3, 1),
    ]),
    # Cameras 2 and 3 show the same clothes, cameras 3 and 4 others.
    **_flat("query", "query", [
        ("0001-03-01-05.jpg", 1, 3, 1), ("0006-03-01-01.jpg", 6, 3, 1), ("0006-04-02-01.jpg", 6, 4, 2),
    ]),
    **_flat("gallery", "gallery", [
        ("0001-02-01-05.jpg", 1, 2, 1), ("0001-04-02-05.jpg", 1, 4, 2), ("0006-01-03-01.jpg", 6, 1, 3),
        ("0006-02-01-01.jpg", 6, 2, 1), ("0006-03-01-02.jpg", 6, 3, 1), ("0006-04-02-02.jpg", 6, 4, 2),
    ]),
}  # fmt: skip
# Fields between the identity and the outfit are of any number; val/ is there and not read.
LAST = {
    "last/train/000001/000001_s02_07_1.jpg": Photo("train", "000001_s02_07_1", 1, -1, 1),
    "last/train/000001/000001_s03_08_2.jpg": Photo("train", "000001_s03_08_2", 1, -1, 2),
    "last/train/000001/000001_9_2.crop.jpg": Photo("train", "000001_9_2.crop", 1, -1, 2),
    "last/train/000020/000020_s02_07_1.jpg": Photo("train", "000020_s02_07_1", 20, -1, 1),
    "last/test/query/000001_s01_1.jpg": Photo("query", "000001_s01_1", 1, -1, -1),
    "last/test/query/000007_s01_2.jpg": Photo("query", "000007_s01_2", 7, -1, -1),
    "last/test/gallery/000001/000001_s01_3.jpg": Photo("gallery", "000001_s01_3", 1, -1, -1),
    "last/test/gallery/000007/000007_s01_1.jpg": Photo("gallery", "000007_s01_1", 7, -1, -1),
    "last/test/gallery/000009/000009_s05_1.jpg": Photo("gallery", "000009_s05_1", 9, -1, -1),
}
# Cameras 1 and 2, outfits A and B (numbered 0 and 1). Query and gallery share tracklet 4; another tracklet of the
# query's camera stays. A photo that no list names, and the validation folders, are nobody's.
_DEEPCHANGE = {
    "DeepChangeDataset/train-set/P0001_C01_A_0001.jpg": (Photo("train", "P0001_C01_A_0001", 1, 1, 0), 11),
    "DeepChangeDataset/train-set/P0001_C02_B_0002.jpg": (Photo("train", "P0001_C02_B_0002", 1, 2, 1), 12),
    "DeepChangeDataset/train-set/P0002_C02_A_0001.jpg": (Photo("train", "P0002_C02_A_0001", 2, 2, 0), 12),
    "DeepChangeDataset/test-set-query/P0007_C01_A_0001.jpg": (Photo("query", "P0007_C01_A_0001", 7, 1, 0), 4),
    "DeepChangeDataset/test-set-query/P0008_C02_B_0001.jpg": (Photo("query", "P0008_C02_B_0001", 8, 2, 1), 6),
    "DeepChangeDataset/test-set-gallery/P0007_C01_A_0002.jpg": (Photo("gallery", "P0007_C01_A_0002", 7, 1, 0), 4),
    "DeepChangeDataset/test-set-gallery/P0007_C01_B_0003.jpg": (Photo("gallery", "P0007_C01_B_0003", 7, 1, 1), 5),
    "DeepChangeDataset/test-set-gallery/P0008_C02_B_0002.jpg": (Photo("gallery", "P0008_C02_B_0002", 8, 2, 1), 6),
    "DeepChangeDataset/test-set-gallery/P0009_C03_A_0001.jpg": (Photo("gallery", "P0009_C03_A_0001", 9, 3, 0), 4),
}
DEEPCHANGE = {path: photo for path, (photo, _) in _DEEPCHANGE.items()}


def _frames(name: str) -> dict[str, tuple[Photo, int]]:
    """Returns the frames of a video dataset by path, each with its tracklet."""
    return {
        f"{video_trees.ROOTS[name]}/{folder}/{frame}.jpg": (
            Photo(split, f"{folder}/{frame}" if name == "ccvid" else frame, *labels),
            tracklet,
        )
        for split, folder, *labels, tracklet, frames in video_trees.TRACKLETS[name]
        for frame in frames
    }


_CCVID, _MEVID = _frames("ccvid"), _frames("mevid")
CCVID, MEVID = ({path: photo for path, (photo, _) in frames.items()} for frames in (_CCVID, _MEVID))
# The tracklet of each photo, by dataset and path.
TRACKLETS = {
    name: {path: tracklet for path, (_, tracklet) in photos.items()}
    for name, photos in (("deepchange", _DEEPCHANGE), ("ccvid", _CCVID), ("mevid", _MEVID))
}
FOLDER = {
    "anna/door.jpg": Photo("train", "anna/door", 10, 1, 0),
    "anna/yard.jpg": Photo("train", "anna/yard", 10, 2, 3),
    "ben/door.png": Photo("train", "ben/door", 11, 1, -1),
    "test/q1.jpg": Photo("query", "test/q1", 10, 1, 0),
    "test/g1.jpg": Photo("gallery", "test/g1", 10, 2, 1),
    "test/g2.jpg": Photo("gallery", "test/g2", 12, 2, 0),
}
TREES: dict[str, dict[str, Photo]] = {
    "celeb": CELEB,
    "celeb_light": CELEB_LIGHT,
    "prcc": PRCC,
    "ltcc": LTCC,
    "vc_clothes": VC_CLOTHES,
    "last": LAST,
    "deepchange": DEEPCHANGE,
    "ccvid": CCVID,
    "mevid": MEVID,
    "folder": FOLDER,
}


def draw(photo: Photo) -> Image.Image:
    """Returns a person of 64 x 32 pixels: a head in the identity's colour, a body in that of its clothes."""
    pixels = _rng(*photo).integers(90, 166, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)  # another noise in every image
    test = photo.split != "train"
    pixels[1:4, 3:5] = _rng("head", test, photo.identity).integers(0, 256, 3)
    outfit = photo.clothes if photo.clothes >= 0 else photo.camera
    pixels[4:10, 2:6] = _rng("torso", test, photo.identity, outfit).integers(0, 256, 3)
    pixels[10:15, 2:6] = _rng("legs", test, photo.identity, outfit).integers(0, 256, 3)
    return Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)


def labels() -> Image.Image:
    """Returns the part labels (scheme "lip") of a drawn person: face, upper clothes, pants."""
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    pixels[4:16, 12:20], pixels[16:40, 8:24], pixels[40:60, 8:24] = 13, 5, 9
    return Image.fromarray(pixels)


def mask() -> Image.Image:
    """Returns the mask of a drawn person: black where there is clothing, white elsewhere."""
    return Image.fromarray(np.where(np.isin(np.asarray(labels()), (5, 9)), 0, 255).astype(np.uint8))


def face(photo: Photo, restored: bool = False) -> Image.Image:
    """Returns the face of a drawn person, twice as large when restored."""
    size = FACE * (1 + restored)
    return draw(photo).crop((10, 2, 22, 18)).resize((size, size), Image.Resampling.BICUBIC)


def encode(image: Image.Image, suffix: str) -> bytes:
    """Returns the bytes of an image file; JPEG for .jpg, else what the suffix says."""
    buffer = io.BytesIO()
    if suffix == ".jpg":
        image.save(buffer, "JPEG", quality=90)
    else:
        image.save(buffer, suffix[1:].upper())
    return buffer.getvalue()


def write(name: str, root: Path, val: bool = False) -> dict[str, Photo]:
    """Writes a dataset as its authors lay it out (folder: with manifest.csv); returns what it holds by path.

    Args:
        name: A key of `TREES`.
        root: folder to write to.
        val: adds the validation images of PRCC.
    """
    tree = TREES[name] | (PRCC_VAL if val else {})
    for path, photo in tree.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(draw(photo), file.suffix))
    if name == "folder":
        write_manifest(root / "manifest.csv", tree)
    if name == "deepchange":
        write_deepchange_lists(root)
    if name in video_trees.LISTS:
        video_trees.write_lists(name, root)
    return tree


def write_deepchange_lists(root: Path) -> None:
    """Writes the three lists of DeepChange beside its folders."""
    lines: dict[str, list[str]] = {}
    for path, tracklet in TRACKLETS["deepchange"].items():
        folder, _, file = path.rpartition("/")
        lines.setdefault(folder, []).append(f"{file},{tracklet}\n")
    for folder, rows in lines.items():
        (root / f"{folder}-bbox.txt").write_text("".join(rows))


def write_manifest(file: Path, tree: dict[str, Photo], **columns: dict[str, str]) -> None:
    """Writes the CSV of a `folder` dataset; `columns` adds more of them, each a value by path."""
    with file.open("w", newline="") as lines:
        rows = csv.writer(lines)
        rows.writerow(("path", "split", "identity", "camera", "clothes", *columns))
        for path, photo in tree.items():
            clothes = photo.clothes if photo.clothes >= 0 else ""
            more = (values.get(path, "") for values in columns.values())
            rows.writerow((path, photo.split, photo.identity, photo.camera, clothes, *more))


def write_parts(tree: dict[str, Photo], out: Path, without: Iterable[str] = (), faceless: Iterable[str] = ()) -> None:
    """Writes what the data preparation command writes for the photos of a tree.

    Args:
        tree: what holds the photos, by path.
        out: folder to write to.
        without: paths of photos that get neither mask nor faces.
        faceless: paths of photos that get no faces.
    """
    settings = {"label_scheme": "lip", "masks": "drawn by hand", "faces": "cut by hand", "restored": "enlarged by hand"}
    out.mkdir(parents=True, exist_ok=True)
    (out / "prepare.json").write_text(json.dumps(settings))
    (out / "images.parquet").write_bytes(b"")  # stands for the table, which comes last
    for path, photo in tree.items():
        if path in set(without):
            continue
        images = {"parts": labels()}
        if path not in set(faceless):
            images |= {"face": face(photo), "restored_face": face(photo, restored=True)}
        for kind, image in images.items():
            file = (out / kind / path).with_suffix(".png")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encode(image, ".png"))


def _rng(*key: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))
