"""A detector finds while embedding the faces that the data preparation finds, whatever photos come together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import data_prep_golden as golden
import image_readers
import torch_files
from data_prep import face_finder, prepare, review
from data_prep.detection import person
from data_prep.detection.detect import Raw
from data_prep.detection.load import Detector
from data_prep.detection.person import Choice, canvas_shape, to_canvas
from data_prep.face_finder import RetinaFaceFinder, open_finder
from data_prep.photos import find_photos
from data_prep.stages import detect
from data_prep.table import read_table
from deskpro_jax.cli import embed
from deskpro_jax.data.images import read_pixels
from deskpro_jax.embedding import embedder as embedder_module
from deskpro_jax.embedding.embedder import Embedder
from deskpro_jax.embedding.embedding_set import EmbeddingSet
from deskpro_jax.errors import InputError, MissingInputError

NETWORK = "retinaface_mnet025"
SIZES = (*[(64, 32)] * 10, (32, 32))  # two canvases; the first has more photos than a batch


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as published, of weights that nobody trained."""
    shapes = golden.manifest(f"{NETWORK}_manifest.json")
    tensors = {name: golden.fill(name, shape, NETWORK) for name, shape in shapes}
    tensors = {n: v.astype(np.float32) if v.dtype.kind == "f" else v for n, v in tensors.items()}
    return torch_files.save(tmp_path_factory.mktemp("detector") / "d.pth", torch_files.torch_zip(tensors))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for i, size in enumerate(SIZES):
        pixels = np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02d}.png")
    return folder


@pytest.fixture(scope="module")
def prepared(photos: Path, detector: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Faces of the data preparation, with its own choices; a score splits them into those found and not."""
    out = tmp_path_factory.mktemp("prepared") / "out"
    arguments = [f"--images={photos}", f"--out={out}", f"--detector={detector}", "--restorer=lanczos", "--batch=8"]
    assert prepare.main(arguments) == 0
    return out


@pytest.fixture(scope="module")
def finder(detector: Path) -> RetinaFaceFinder:
    return open_finder(detector)


def faces_of(prepared: Path, names: list[str]) -> list[np.ndarray | None]:
    paths = [prepared / "face" / name for name in names]
    return [np.asarray(Image.open(path)) if path.exists() else None for path in paths]


def test_faces_are_those_of_the_data_preparation(photos: Path, prepared: Path, finder: RetinaFaceFinder) -> None:
    names = find_photos(photos)
    expected = faces_of(prepared, names)
    assert sum(face is not None for face in expected) > 5
    found = finder([read_pixels(photos / name) for name in names])
    for name, one, other in zip(names, found, expected, strict=True):
        assert (one is None) == (other is None), name
        if one is not None:
            np.testing.assert_array_equal(one, other, err_msg=name)
    assert finder([]) == []


def test_the_company_of_a_photo_changes_nothing(photos: Path, finder: RetinaFaceFinder) -> None:
    pictures = [read_pixels(photos / name) for name in find_photos(photos)]
    whole = finder(pictures)
    again = finder([pictures[i] for i in (10, 3)])
    for one, other in zip(again, (whole[10], whole[3]), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_embedding_with_a_detector_is_embedding_with_prepared_faces(
    untrained: Path, photos: Path, prepared: Path, detector: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["--checkpoint", str(untrained), "--images", str(photos), "--threads", "1"]
    given, looked = tmp_path / "given.npy", tmp_path / "looked.npy"
    assert embed.main([*common, "--out", str(given), "--faces", str(prepared)]) == 0
    assert embed.main([*common, "--out", str(looked), "--detector", str(detector)]) == 0
    assert "no faces were given" not in capsys.readouterr().err
    one, other = EmbeddingSet(given), EmbeddingSet(looked)
    assert one.columns()["has_face"] == other.columns()["has_face"]
    np.testing.assert_array_equal(one.all(), other.all())
    assert len(other.settings["detector"]) == 64


def test_canvases_are_of_few_shapes_and_hold_the_photo() -> None:
    shapes = set()
    for height in range(30, 1500, 61):
        for width in (20, height // 2, height, 3 * height):
            photo = np.zeros((height, max(width, 1), 3), np.uint8)
            canvas = to_canvas(photo, Choice())
            assert canvas.pixels.shape[:2] == canvas_shape(photo.shape, Choice())
            assert canvas.size[0] <= canvas.pixels.shape[0] <= 2048
            assert canvas.size[1] <= canvas.pixels.shape[1] <= 2048
            shapes.add(canvas.pixels.shape)
    assert len(shapes) < 40
    assert person.batch_rows((512, 256), 32, 4) == 32
    assert person.batch_rows((2048, 2048), 32, 4) == 4  # at least one a device


def test_what_is_no_detector_is_told(tmp_path: Path, untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, content, words in (
        ("text.pth", b"no weights", "text.pth"),
        ("other.pth", torch_files.torch_zip({"conv1.weight": np.zeros((1, 1), np.float32)}), "expected a RetinaFace"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=words):
            open_finder(tmp_path / name)
    with pytest.raises(InputError, match="expected a RetinaFace"):
        Embedder(untrained, detector=tmp_path / "other.pth")
    with pytest.raises(MissingInputError, match="correct --detector"):
        Embedder(untrained, detector=tmp_path / "absent.pth")
    with pytest.raises(InputError, match="detector and find_faces"):
        Embedder(untrained, detector=tmp_path / "other.pth", find_faces=lambda photos: [None] * len(photos))
    (tmp_path / "p.png").write_bytes(b"")
    arguments = ["--checkpoint", str(untrained), "--images", str(tmp_path / "p.png"), "--out", str(tmp_path / "e.npy")]
    assert embed.main([*arguments, "--detector", str(tmp_path / "other.pth")]) == 2
    assert "expected a RetinaFace" in capsys.readouterr().err


# Faces by scene, in fractions of the photo: left, top, right, bottom, score.
SCENES = {
    "a standing person": [(0.4, 0.05, 0.6, 0.2, 0.9)],
    "nearly all face": [(0.1, 0.1, 0.9, 0.95, 0.9)],
    "a bust": [(0.25, 0.1, 0.75, 0.6, 0.9)],
    "a low bust": [(0.25, 0.25, 0.75, 0.75, 0.9)],
    "a bystander's larger face beside": [(0.4, 0.05, 0.6, 0.2, 0.7), (-0.15, 0.0, 0.25, 0.3, 0.95)],
    "a face cut by the border": [(0.05, -0.1, 0.35, 0.2, 0.9)],
    "a face mostly behind the border": [(0.2, -0.2, 0.5, 0.1, 0.9)],
    "a face on a shirt": [(0.4, 0.6, 0.6, 0.7, 0.9)],
    "a face that scores little": [(0.4, 0.05, 0.6, 0.2, 0.4)],
}
OUTSIDE = {"nearly all face", "a low bust", "a face mostly behind the border", "a face on a shirt"}
FACELESS = {*OUTSIDE, "a face that scores little"}


def scene_faces(detector: Detector, variables: Any, images: jax.Array, sizes: jax.Array) -> Raw:
    """Stands in for the detector: the colour of a photo says which scene it is."""
    scenes = np.zeros((len(SCENES), 2, 5), np.float32)
    for number, faces in enumerate(SCENES.values()):
        scenes[number, : len(faces)] = faces
    chosen = jnp.asarray(scenes)[images[:, 4, 4, 0].astype(jnp.int32) // 20]
    height, width = sizes[:, :1].astype(jnp.float32), sizes[:, 1:].astype(jnp.float32)
    boxes = chosen[..., :4] * jnp.stack([width, height, width, height], -1)
    fractions = jnp.asarray([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)])
    landmarks = boxes[:, :, None, :2] + fractions * (boxes[:, :, None, 2:] - boxes[:, :, None, :2])
    return Raw(boxes, chosen[..., 4], landmarks)


@pytest.fixture
def scenes(tmp_path: Path) -> Iterator[Path]:
    """A photo of each scene, and a detector that finds the faces of the scene."""
    folder = tmp_path / "scenes"
    folder.mkdir()
    for number, name in enumerate(SCENES):
        pixels = np.full((128, 64, 3), 20 * number + 10, np.uint8)
        pixels[20:, :, 1:] = np.random.default_rng(number).integers(0, 256, (108, 64, 2))
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (tmp_path / "d.pth").write_bytes(b"d")
    with (
        mock.patch.object(prepare, "load_detector", return_value=Detector("mobilenet0.25", {}, "d")),
        mock.patch.object(face_finder, "load_detector", return_value=Detector("mobilenet0.25", {}, "d")),
        mock.patch.object(detect, "detect_raw", scene_faces),
        mock.patch.object(face_finder, "detect_raw", scene_faces),
    ):
        yield folder


@pytest.mark.parametrize("region", [{}, {"head_bottom": 1.0, "head_side": 0.0}])
def test_preparing_and_embedding_choose_the_same_face(
    scenes: Path, tmp_path: Path, region: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in region.items()]
    out = tmp_path / "out"
    detector = tmp_path / "d.pth"
    common = [f"--images={scenes}", f"--out={out}", f"--detector={detector}", "--restorer=lanczos"]
    assert prepare.main([*common, *flags]) == 0
    err = capsys.readouterr().err
    names = find_photos(scenes)
    finder = open_finder(detector, **region)
    found = finder([read_pixels(scenes / name) for name in names])
    for name, face, expected in zip(names, found, faces_of(out, names), strict=True):
        assert (face is None) == (expected is None), name
        if face is not None:
            np.testing.assert_array_equal(face, expected, err_msg=name)
    without = {Path(name).stem for name, face in zip(names, found, strict=True) if face is None}
    outside = {Path(names[position]).stem for position in finder.outside_head}
    rows = {row["image_id"]: row["faces_outside_head"] for row in read_table(out).to_pylist()}
    if region:
        assert without == {"a face that scores little", "a face mostly behind the border"}
        assert outside == {"a face mostly behind the border"}
    else:
        assert without == FACELESS
        assert outside == OUTSIDE
        assert "shows faces, none of them in the head region: used without a face; --head-bottom" in err
        assert "(likewise 3 other photos)" in err
    assert rows == {name: int(name in outside) for name in SCENES}


def test_the_review_counts_faces_outside_the_head_region(scenes: Path, tmp_path: Path) -> None:
    out, page = tmp_path / "out", tmp_path / "page.html"
    assert prepare.main([f"--images={scenes}", f"--out={out}", f"--detector={tmp_path / 'd.pth'}"]) == 0
    assert review.main([str(out), "--out", str(page)]) == 0
    text = page.read_text()
    assert "with faces, none in the head region</dt><dd>4</dd>" in text
    assert text.count('data-detect="outside"') == 4


def test_embedding_says_how_many_photos_show_faces_outside_the_head_region(
    untrained: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(embedder_module, "_compiled", image_readers.compiled)
    common = ["--checkpoint", str(untrained), "--images", str(scenes), "--detector", str(tmp_path / "d.pth")]
    assert embed.main([*common, "--out", str(tmp_path / "e.npy")]) == 0
    assert "shows faces, none of them in the head region" in capsys.readouterr().err
    one = EmbeddingSet(tmp_path / "e.npy").columns()
    assert {n for n, has in zip(one["image_id"], one["has_face"], strict=True) if not has} == FACELESS
    widened = ["--head-bottom", "1", "--head-side", "0"]
    assert embed.main([*common, "--out", str(tmp_path / "all.npy"), *widened]) == 0
    assert sum(EmbeddingSet(tmp_path / "all.npy").columns()["has_face"]) == len(SCENES) - 2
    assert embed.main([*common, "--out", str(tmp_path / "x.npy"), "--head-bottom", "2"]) == 2
    assert "--head-bottom is 2.0; expected more than 0" in capsys.readouterr().err
    assert embed.main([*common[:4], "--out", str(tmp_path / "x.npy"), *widened]) == 2
    assert "give a detector" in capsys.readouterr().err
