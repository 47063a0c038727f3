"""A detector finds while embedding the faces that the data preparation finds, whatever photos come together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import data_prep_golden as golden
import torch_files
from data_prep import prepare
from data_prep.detection import person
from data_prep.detection.person import Choice, canvas_shape, to_canvas
from data_prep.face_finder import RetinaFaceFinder, open_finder
from data_prep.photos import find_photos
from deskpro_jax.cli import embed
from deskpro_jax.data.images import read_pixels
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
