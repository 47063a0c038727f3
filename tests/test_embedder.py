"""The embedder computes what evaluation computes, whatever form photos, faces and networks come in."""

from __future__ import annotations

import functools
import os
import pickle
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

import deskpro_jax
import runs
from data_prep.face_finder import open_finder
from deskpro_jax.data.load import dataset
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.embedding import embedder as embedder_module
from deskpro_jax.embedding.embedder import Embedder, Pair
from deskpro_jax.errors import InputError, RunError
from deskpro_jax.evaluation import evaluate
from deskpro_jax.methods import deskpro
from deskpro_jax.models import initialisers
from deskpro_jax.models.contract import Counts, Network
from deskpro_jax.runtime import sharding
from deskpro_jax.workdir.export import export_weights
from small_models import images, write_files

FACE = 7 * 32  # numbers of the face stream


@pytest.fixture(scope="module")
def split(tiny_data: Path) -> ReIDSplit:
    """Twenty images, one batch and a bit, some without a face."""
    train = dataset.load("synthetic_tiny", tiny_data, "train")
    without = np.flatnonzero(~train.has_face)[:4]
    return dataset.subset(train, np.r_[np.flatnonzero(train.has_face)[:16], without])


@pytest.fixture(scope="module")
def embedder(untrained: Path) -> Embedder:
    return Embedder(untrained)


@pytest.fixture(scope="module")
def expected(tiny_data: Path, split: ReIDSplit) -> np.ndarray:
    """What evaluation computes for the split."""
    config = runs.config(tiny_data, model__backbone="x0_25")
    net = Network(deskpro.build(config, Counts(runs.CLASSES)), deskpro.streams(config))
    mesh = sharding.make_mesh(config)
    variables = sharding.put_replicated(mesh, initialisers.init_variables(net.module, 0))
    embed = embedder_module._compiled((net,), False, mesh)  # compiled once for all tests
    return evaluate.embed_split(embed, [variables], split, config, mesh, net.images)


@pytest.fixture(scope="module")
def found(embedder: Embedder, split: ReIDSplit) -> np.ndarray:
    return embedder.embed(images(split), images(split, "face"))


def test_embeddings_are_those_of_evaluation(found: np.ndarray, expected: np.ndarray, embedder: Embedder) -> None:
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float32
    assert (embedder.streams, embedder.parts, embedder.dimension) == (("face", "body"), 14, 2 * FACE)
    assert (embedder.body_size, embedder.face_size, embedder.flip, embedder.batch) == ((64, 32), (32, 32), False, 16)
    lengths = np.linalg.norm(found.reshape(len(found), 14, -1), axis=2)
    np.testing.assert_allclose(lengths[:16], 1, atol=1e-5)
    assert not lengths[16:, :7].any()  # no face, no face features


def test_files_arrays_and_pillow_images_are_the_same(
    embedder: Embedder, split: ReIDSplit, found: np.ndarray, tmp_path: Path
) -> None:
    write_files(split, tmp_path)
    paths = [tmp_path / "photos" / f"{name}.jpg" for name in split.image_id]
    faces = [tmp_path / "prepared" / "face" / f"{name}.png" for name in split.image_id]
    given = [str(face) if face.exists() else None for face in faces]
    np.testing.assert_array_equal(embedder.embed(paths, given), found)
    arrays = [np.asarray(image.convert("RGB")) for image in images(split)]
    mixed = [array if i % 2 else path for i, (array, path) in enumerate(zip(arrays, paths, strict=True))]
    np.testing.assert_array_equal(embedder.embed(mixed, given), found)


def test_padding_and_neighbours_in_a_batch_change_nothing(
    embedder: Embedder, split: ReIDSplit, found: np.ndarray
) -> None:
    chosen = [3, 17]
    bodies, faces = images(split), images(split, "face")
    alone = embedder.embed([bodies[i] for i in chosen], [faces[i] for i in chosen])
    np.testing.assert_array_equal(alone, found[chosen])
    assert embedder.embed([]).shape == (0, embedder.dimension)


def test_without_faces_the_body_stream_alone_is_computed(
    embedder: Embedder, split: ReIDSplit, found: np.ndarray
) -> None:
    bodies = embedder.embed(images(split))
    assert not bodies[:, :FACE].any()
    np.testing.assert_allclose(bodies[:, FACE:], found[:, FACE:], atol=1e-6)


def test_faces_that_are_not_given_are_looked_for(untrained: Path, split: ReIDSplit, found: np.ndarray) -> None:
    faces = images(split, "face")
    by_photo = {np.asarray(body).tobytes(): face for body, face in zip(images(split), faces, strict=True)}
    asked: list[int] = []

    def finder(photos):
        asked.append(len(photos))
        known = [by_photo[photo.tobytes()] for photo in photos]
        return [None if face is None else np.asarray(face) for face in known]

    looking = Embedder(untrained, find_faces=finder)
    np.testing.assert_array_equal(looking.embed(images(split)), found)
    assert asked == [16, 4]
    half = [face if i < 8 else None for i, face in enumerate(faces)]
    np.testing.assert_array_equal(looking.embed(images(split), half), found)
    assert asked[2:] == [8, 4]


def test_eight_threads_get_the_rows_that_one_gets(untrained: Path, split: ReIDSplit, found: np.ndarray) -> None:
    bodies, faces = images(split), images(split, "face")
    by_photo = {np.asarray(body).tobytes(): face for body, face in zip(bodies, faces, strict=True)}
    inside = threading.Lock()  # a finder need not be safe for threads

    def finder(photos: Sequence[np.ndarray]) -> list[np.ndarray | None]:
        assert inside.acquire(blocking=False)
        time.sleep(0.01)
        found_faces = [by_photo[photo.tobytes()] for photo in photos]
        inside.release()
        return [None if face is None else np.asarray(face) for face in found_faces]

    given, looking = Embedder(untrained), Embedder(untrained, find_faces=finder)
    without = given.embed(bodies)

    def pairs() -> Iterator[Pair]:
        return zip(bodies, faces, strict=True)

    calls = [
        *2 * [lambda: given.embed(bodies, faces)],
        *2 * [lambda: given.embed(bodies)],
        *2 * [lambda: looking.embed(bodies)],
        *2 * [lambda: np.concatenate([b.embeddings for b in given.stream(pairs(), faces=True)])],
    ]
    with ThreadPoolExecutor(len(calls)) as pool:
        rows = [future.result() for future in [pool.submit(call) for call in calls]]
    for number, result in enumerate(rows):
        expected_rows = without if number in (2, 3) else found
        np.testing.assert_array_equal(result, expected_rows)


def test_threads_that_come_together_compile_once(untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = embedder_module._compiled.__wrapped__
    monkeypatch.setattr(embedder_module, "_compiled", functools.lru_cache(lambda *a: made.append(1) or make(*a)))
    embedder = Embedder(untrained)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: embedder.embed([]), range(8)))
    assert len(made) == 1


def test_a_forked_process_is_told_to_spawn(embedder: Embedder, untrained: Path, split: ReIDSplit) -> None:
    photos = images(split)[:1]
    for work in (
        lambda: embedder.embed(photos),
        lambda: next(embedder.stream(((p, None) for p in photos), faces=False)),
        lambda: Embedder(untrained),
        lambda: runs.run(runs.config(untrained), untrained, "evaluate"),
        lambda: open_finder("absent.pth"),
    ):
        assert re.match(r"RunError: .* forked after JAX had started.*get_context\('spawn'\)", raised_in_fork(work))
    with pytest.raises(RunError, match="send the path of its networks"):
        pickle.dumps(embedder)


def raised_in_fork(work: Callable[[], object]) -> str:
    """Returns the error that work ends with in a fork of this process, "" without one."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that forking is not safe is what is tested
        child = os.fork()
    if child == 0:
        signal.alarm(60)  # where it hangs after all
        try:
            work()
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return text


def test_an_exported_file_gives_the_same_embeddings_and_checksum(
    untrained: Path, embedder: Embedder, split: ReIDSplit, found: np.ndarray, tmp_path: Path
) -> None:
    export_weights(untrained, tmp_path / "model.safetensors")
    other = Embedder(tmp_path / "model.safetensors", batch=16)
    assert other.settings == embedder.settings
    assert other.sizes_known
    np.testing.assert_array_equal(other.embed(images(split), images(split, "face")), found)


def test_mirrored_photos_are_added_when_asked_for(untrained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def compiled(networks, flip, mesh):
        asked.append((networks[0].images, flip, mesh.size))
        return lambda variables, batch: np.zeros((len(batch["body"]), FACE), np.float32)

    monkeypatch.setattr(embedder_module, "_compiled", compiled)
    embedder = Embedder(untrained, flip=True)
    embedder.embed([np.zeros((64, 32, 3), np.uint8)])
    assert asked == [(("body",), True, 1)]
    assert embedder.settings["flip"] is True


def test_an_embedding_that_is_not_finite_is_a_failure_of_its_photo(
    untrained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compiled(networks: object, flip: bool, mesh: object) -> object:
        rows = np.ones((16, FACE), np.float32)
        rows[1, 3], rows[2, 0] = np.nan, -np.inf
        return lambda variables, batch: rows

    monkeypatch.setattr(embedder_module, "_compiled", compiled)
    embedder = Embedder(untrained, batch=16)
    photos = [np.zeros((64, 32, 3), np.uint8)] * 4
    (block,) = embedder.stream(((photo, None) for photo in photos), faces=False)
    assert sorted(block.failures) == [1, 2]
    assert np.isfinite(block.embeddings).all()
    assert block.embeddings.any(axis=1).tolist() == [True, False, False, True]
    with pytest.raises(InputError, match=r"image 1 cannot be used: the networks give NaN or infinity for it"):
        embedder.embed(photos)


def test_photos_that_cannot_be_used_are_named(embedder: Embedder, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    fine = np.zeros((64, 32, 3), np.uint8)
    with pytest.raises(InputError, match=r"image 1 \(.*broken\.jpg\) cannot be used: is not a readable image"):
        embedder.embed([fine, tmp_path / "broken.jpg"])
    with pytest.raises(InputError, match=r"image 0 cannot be used: its face .*absent\.png: can't be read \(No such"):
        embedder.embed([fine], [tmp_path / "absent.png"])
    with pytest.raises(InputError, match="single photo; expected a list"):
        embedder.embed(str(tmp_path / "broken.jpg"))
    with pytest.raises(InputError, match="1 images and 2 faces"):
        embedder.embed([fine], [None, None])
    for array in (fine[..., 0], fine.astype(np.float32), fine[None]):
        with pytest.raises(InputError, match=r"expected \[height, width, 3\] uint8"):
            embedder.embed([array])
    with pytest.raises(InputError, match="is a int"):
        embedder.embed([3])


def test_one_bad_photo_leaves_the_others_of_a_stream_as_they_are(
    embedder: Embedder, split: ReIDSplit, found: np.ndarray, tmp_path: Path
) -> None:
    pairs = list(zip(images(split), images(split, "face"), strict=True))
    pairs[5] = (tmp_path / "absent.jpg", None)
    blocks = list(embedder.stream(iter(pairs), faces=True))
    assert [len(block.embeddings) for block in blocks] == [16, 4]
    assert list(blocks[0].failures) == [5]
    assert not blocks[0].embeddings[5].any()
    others = np.arange(20) != 5
    np.testing.assert_array_equal(np.concatenate([b.embeddings for b in blocks])[others], found[others])
    assert np.concatenate([b.has_face for b in blocks])[others].tolist() == split.has_face[others].tolist()


def test_settings_without_use_are_refused(untrained: Path) -> None:
    for arguments, message in (
        ({"batch": 0}, "at least 1"),
        ({"threads": 0}, "at least 1"),
        ({"body_size": (0, 5)}, "body_size is"),
    ):
        with pytest.raises(InputError, match=message):
            Embedder(untrained, **arguments)


def test_the_package_offers_the_embedder_without_importing_jax() -> None:
    assert deskpro_jax.Embedder is Embedder
    code = "import sys, deskpro_jax; print('jax' in sys.modules, 'Embedder' in deskpro_jax.__all__)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True, cwd=runs.ROOT).split() == ["False", "True"]
