"""The embed command: the same bytes however often it was interrupted and by how many processes, and clear ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from deskpro_jax.cli import embed, search
from deskpro_jax.data.images import UnreadableError, read_photo
from deskpro_jax.data.load import dataset
from deskpro_jax.embedding import embedder
from deskpro_jax.embedding.embedder import Block, Embedder
from deskpro_jax.embedding.embedding_set import EmbeddingSet
from small_models import write_files

DIMENSION = 28


class Fake:
    """An embedder whose embeddings are mean colours: quick, and different for each photo."""

    body_size, face_size, sizes_known = (8, 4), (4, 4), True
    batch, dimension, face_field = 4, DIMENSION, "face"
    settings = {"model_checksum": "abc", "streams": ["face", "body"], "parts": 14, "dimension": DIMENSION}  # noqa: RUF012
    blocks_left = 10**9  # before the process is killed
    read: list[str]

    def __init__(self, source: object = None, **options: object):
        self.read = []

    def stream(self, pairs: Iterator, *, faces: bool) -> Generator[Block]:
        while chunk := [pair for _, pair in zip(range(self.batch), pairs, strict=False)]:
            if type(self).blocks_left == 0:
                raise KeyboardInterrupt
            type(self).blocks_left -= 1
            rows, failures = np.zeros((len(chunk), DIMENSION), np.float32), {}
            for i, (photo, face) in enumerate(chunk):
                self.read.append(photo)
                try:
                    rows[i, 14:] = np.asarray(read_photo(photo)).mean()
                    rows[i, :14] = face is not None
                except UnreadableError as error:
                    failures[i] = str(error)
            yield Block(rows, np.array([face is not None for _, face in chunk]), failures)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    kind = type("Fake", (Fake,), {})
    monkeypatch.setattr(embedder, "Embedder", kind)
    return kind


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Thirty photos; every third has a face."""
    for i in range(30):
        for folder in ("photos/a", *(["faces/a"] if i % 3 == 0 else [])):
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / folder / f"{i:02d}.png")
    return tmp_path / "photos"


def flags(photos: Path, out: Path, *more: str) -> list[str]:
    faces = str(photos.with_name("faces"))
    given = ["--checkpoint", "model", "--images", str(photos), "--out", str(out), "--faces", faces, "--part", "8"]
    return [*given, *more]


def content(path: Path) -> dict[str, bytes]:
    """Returns everything below a path, hidden files too."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def test_a_folder_of_photos_becomes_one_file(
    fake: type[Fake], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert embed.main(flags(photos, tmp_path / "e.parquet")) == 0
    assert "e.parquet: 30 embeddings of 28 numbers, 10 of them with a face" in capsys.readouterr().out
    found = EmbeddingSet(tmp_path / "e.parquet")
    assert found.columns()["image_id"] == [f"a/{i:02d}" for i in range(30)]
    assert found.columns()["has_face"] == [i % 3 == 0 for i in range(30)]
    np.testing.assert_array_equal(found.all()[:, -1], np.arange(30))
    assert found.settings["photos"]["count"] == 30
    assert not list(tmp_path.glob("*.parts"))
    assert pq.ParquetFile(tmp_path / "e.parquet").num_row_groups == 4


@pytest.mark.parametrize("name", ["folder", "e.parquet", "e.npy"])
def test_a_killed_run_goes_on_where_it_was_and_ends_with_the_same_bytes(
    fake: type[Fake], photos: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, cut = tmp_path / "whole" / name, tmp_path / "cut" / name
    assert embed.main(flags(photos, whole)) == 0
    for blocks in (3, 2, 3):  # 2 a part: one part and a half, one, one and a half
        fake.blocks_left = blocks
        assert embed.main(flags(photos, cut)) == 1
        assert not cut.is_file()
        assert "continues" in capsys.readouterr().err
    fake.blocks_left = 2
    assert embed.main(flags(photos, cut)) == 0  # only the last part was left to do
    assert content(cut.parent) == content(whole.parent)
    fake.blocks_left = 0
    assert embed.main(flags(photos, cut)) == 0  # nothing is left to do
    assert content(cut.parent) == content(whole.parent)


@pytest.mark.parametrize("name", ["folder", "e.parquet"])
def test_processes_share_the_parts(
    fake: type[Fake], photos: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, shared = tmp_path / "whole" / name, tmp_path / "shared" / name
    assert embed.main(flags(photos, whole)) == 0
    for process in (2, 0, 1):
        fake.blocks_left = 4 if process == 0 else 2  # parts 0 and 3, part 1, part 2
        assert not shared.is_file()
        assert embed.main(flags(photos, shared, "--processes", "3", "--process", str(process))) == 0
        assert fake.blocks_left == 0
    assert "other processes have some left" in capsys.readouterr().out
    assert content(shared.parent) == content(whole.parent)


@pytest.mark.parametrize("name", ["folder", "e.parquet", "e.npy"])
def test_unreadable_photos_are_listed_and_tried_again(
    fake: type[Fake], photos: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, gaps = tmp_path / "whole" / name, tmp_path / "gaps" / name
    assert embed.main(flags(photos, whole)) == 0
    good = (photos / "a/09.png").read_bytes()
    (photos / "a/09.png").write_bytes(good[:50])
    capsys.readouterr()
    for _ in range(2):
        assert embed.main(flags(photos, gaps)) == 1
        output = capsys.readouterr()
        assert "29 embeddings" in output.out
        assert "1 photos could not be read" in output.err
        assert f"{photos}/a/09.png: " in output.err
        found = EmbeddingSet(gaps)
        assert found.columns()["image_id"] == [f"a/{i:02d}" for i in range(30) if i != 9]
        np.testing.assert_array_equal(found.all()[:, -1], [i for i in range(30) if i != 9])
        fake.blocks_left = 2  # of the second round: the part with the gap alone
    (photos / "a/09.png").write_bytes(good)
    fake.blocks_left = 2
    assert embed.main(flags(photos, gaps)) == 0
    assert content(gaps.parent) == content(whole.parent)


def test_other_photos_or_settings_are_refused(
    fake: type[Fake], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("folder", "e.parquet"):
        out = tmp_path / name
        assert embed.main(flags(photos, out)) == 0
        before = content(out)
        assert embed.main(flags(photos, out, "--stored", "float16")) == 2
        assert "stored: 'float32' there, 'float16' now" in capsys.readouterr().err
        (photos / "a/new.png").write_bytes(b"")
        assert embed.main(flags(photos, out)) == 2
        assert "'count': 30" in capsys.readouterr().err
        (photos / "a/new.png").unlink()
        assert content(out) == before


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--process", "2", "--processes", "2"], "--process is 2 of 2"),
        (["--format", "npy"], "do not fit"),
        (["--faces", "absent"], "correct --faces"),
        (["--detector", "absent.pth"], "correct --detector"),
        (["--images", "absent"], "no photos at absent"),
        (["--out", "photos"], "holds something else"),
    ],
)
def test_bad_flags_end_with_one_line_and_leave_nothing(
    fake: type[Fake],
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    before = content(tmp_path)
    assert embed.main(flags(photos, tmp_path / "e.parquet", *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert content(tmp_path) == before


def test_photos_without_any_face_are_mentioned(
    fake: type[Fake], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = flags(photos / "a", tmp_path / "one")
    assert embed.main([*arguments[:6], *arguments[8:]]) == 0
    assert "no faces (--faces): only the body stream is embedded" in capsys.readouterr().err
    (tmp_path / "photos/faces").mkdir()
    assert embed.main([*arguments, "--out", str(tmp_path / "two"), "--faces", str(tmp_path / "photos/faces")]) == 0
    assert "has a face for none of the 30 photos" in capsys.readouterr().err


def test_a_signal_ends_it_between_two_batches(
    fake: type[Fake], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = fake.stream

    def stream(self: Fake, pairs: Iterator, *, faces: bool) -> Generator[Block]:
        for number, block in enumerate(original(self, pairs, faces=faces)):
            if number == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            yield block

    monkeypatch.setattr(fake, "stream", stream)
    assert embed.main(flags(photos, tmp_path / "folder")) == 1
    assert "SIGTERM: stopped; the same command continues" in capsys.readouterr().err
    assert len(list((tmp_path / "folder").glob("part-*.parquet"))) == 2
    monkeypatch.setattr(fake, "stream", original)
    fake.blocks_left = 4
    assert embed.main(flags(photos, tmp_path / "folder")) == 0
    assert len(EmbeddingSet(tmp_path / "folder").all()) == 30


@pytest.mark.slow
def test_photos_are_embedded_and_found(
    untrained: Path,
    tiny_data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    query = dataset.load("synthetic_tiny", tiny_data, "query")
    write_files(query, tmp_path)
    photos, prepared, out = tmp_path / "photos", tmp_path / "prepared", tmp_path / "e.parquet"
    rows = zip(query.image_id, query.identity, query.camera, strict=True)
    table = "path,identity,camera\n" + "".join(f"{name}.jpg,{who},{where}\n" for name, who, where in rows)
    (photos / "t.csv").write_text(table)
    model = ["--checkpoint", str(untrained), "--faces", str(prepared)]
    (photos / "u.csv").write_text(f"path\n{query.image_id[5]}.jpg\nbroken.jpg\n")
    (photos / "broken.jpg").write_bytes(b"no photo")
    used: list[Embedder] = []
    monkeypatch.setattr(embedder, "Embedder", lambda *a, **b: used.append(Embedder(*a, **b)) or used[-1])
    assert embed.main([*model, "--images", str(photos / "t.csv"), "--out", str(out), "--stored", "float16"]) == 0
    faces = [prepared / "face" / f"{name}.png" for name in query.image_id]
    given = [face if face.exists() else None for face in faces]
    expected = used[0].embed([photos / f"{name}.jpg" for name in query.image_id], given)
    capsys.readouterr()
    wanted = ["--query", str(photos / "u.csv"), "-k", "3", "--batch", "16", "--format", "json"]
    assert search.main([*model, "--gallery", str(out), *wanted]) == 1
    found = EmbeddingSet(out)
    np.testing.assert_array_equal(found.all(), expected.astype(np.float16).astype(np.float32))
    assert found.settings["model_checksum"] == used[0].checksum
    assert found.columns()["identity"] == query.identity.tolist()
    assert found.columns()["has_face"] == query.has_face.tolist()

    output = capsys.readouterr()
    assert "broken.jpg could not be read" in output.err
    (only,) = json.loads(output.out)
    assert (only["query"], only["shows"]) == (query.image_id[5], "face and body")
    best = only["matches"][0]
    assert (best["image_id"], best["identity"]) == (query.image_id[5], query.identity[5])
    assert best["similarity"] == pytest.approx(1, abs=1e-3)  # of vectors in float16
