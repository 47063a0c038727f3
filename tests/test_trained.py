"""Networks are the same ones wherever they are kept, and come with how images go in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from deskpro_jax.checkpoints.selection import METRICS
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.weights.export import export_weights
from deskpro_jax.weights.read import read_tensors
from deskpro_jax.workdir import networks
from deskpro_jax.workdir.imports import import_weights
from deskpro_jax.workdir.networks import open_trained
from small_models import write_workdir


@pytest.fixture(scope="module")
def workdir(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A body network and a face teacher."""
    folder = tmp_path_factory.mktemp("star") / "workdir"
    return write_workdir(folder, tiny_data, "deskpro_star,debug", eval__batch=6, eval__flip=False)


@pytest.fixture(scope="module")
def alone(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A body network."""
    folder = tmp_path_factory.mktemp("alone") / "workdir"
    return write_workdir(folder, tiny_data, "csa_att,debug", eval__flip=False)


@pytest.fixture(scope="module")
def file(alone: Path) -> Path:
    export_weights(alone, alone.parent / "model.safetensors")
    return alone.parent / "model.safetensors"


def test_a_workdir_says_how_its_networks_are_used(workdir: Path) -> None:
    found = open_trained(workdir)
    assert (found.streams, found.face, found.feature_dim) == (("face", "body"), "teacher", 32)
    assert [(n.module.body, n.module.face, n.face_field) for n in found.networks] == [
        (True, False, "restored_face"),
        (False, True, "restored_face"),
    ]
    assert (found.body_size, found.face_size, found.flip, found.batch) == ((64, 32), (32, 32), False, 6)
    assert found.dtype == "float32"
    assert found.sizes_known
    body = open_trained(workdir, face="none", dtype="bfloat16")
    assert (body.streams, body.dtype) == (("body",), "bfloat16")
    assert [network.module.dtype for network in body.networks] == [jnp.bfloat16]
    assert body.checksum != found.checksum  # another embedding


def test_files_and_converted_workdirs_hold_the_same_networks(alone: Path, file: Path, tmp_path: Path) -> None:
    import_weights(file, tmp_path / "converted")
    checksum = open_trained(alone).checksum
    for source in (file, tmp_path / "converted"):
        found = open_trained(source)
        assert found.checksum == checksum
        assert (found.face, found.body_size, found.face_size, found.flip) == ("none", (64, 32), (32, 32), False)
        assert found.sizes_known
    safetensors.numpy.save_file(read_tensors(file), tmp_path / "bare.safetensors")
    bare = open_trained(tmp_path / "bare.safetensors")
    assert bare.checksum == checksum
    assert (bare.body_size, bare.face_size, bare.flip) == ((384, 128), (224, 224), True)  # the paper's
    assert not bare.sizes_known


def test_each_stream_may_come_from_its_own_checkpoint(tmp_path: Path) -> None:
    place = tmp_path / "student" / "checkpoints"
    with CheckpointStore(place, best_metric=METRICS, asynchronous=False) as store:
        for step, face, body in ((1, 0.9, 0.1), (2, 0.1, 0.9), (3, 0.2, 0.2)):
            tree = {name: {"scale": jnp.full(2, step)} for name in ("face_stream", "body_stream")}
            metrics = {"mAP": 0.5, "face_mAP": face, "body_mAP": body}
            store.save(step, {"params": tree, "batch_stats": tree}, data={}, metrics=metrics, wait=True)
    for report, steps in (("last", (3, 3)), ("stitched", (1, 2))):
        found = networks._phase(place, "student", report)
        assert tuple(int(found[role]["params"]["scale"][0]) for role in ("student", "body")) == steps


def test_a_checksum_depends_on_all_but_the_classifiers() -> None:
    def checksum(**changed: float) -> str:
        numbers = {"neck": 1.0, "classifier": 2.0, "mean": 3.0} | changed
        params = {"body_stream": {name: {"scale": np.full(3, numbers[name])} for name in ("neck", "classifier")}}
        return networks._checksum([{"params": params, "batch_stats": {"mean": np.full(3, numbers["mean"])}}])

    assert checksum() == checksum(classifier=0)
    assert len({checksum(), checksum(neck=0), checksum(mean=0)}) == 3


def test_a_teacher_is_read_from_where_its_configuration_says(workdir: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(workdir, tmp_path / "moved"))
    (moved / "teacher").rename(tmp_path / "elsewhere")
    config = json.loads((moved / "config.json").read_text())
    config["teacher"]["checkpoint"] = str(tmp_path / "elsewhere")
    (moved / "config.json").write_text(json.dumps(config))
    found = open_trained(moved)
    assert (found.streams, found.face) == (("face", "body"), "teacher")
    with pytest.raises(MissingInputError, match=r"no teacher at .*absent"):
        networks._teacher(moved, str(tmp_path / "absent"), "last")


def test_what_is_not_there_is_named(workdir: Path, file: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no file or folder at .*absent"):
        open_trained(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match="no checkpoints in"):
        open_trained(tmp_path / "empty")
    with pytest.raises(InputError, match="holds body, no student network"):
        open_trained(file, face="student")
    with pytest.raises(InputError, match="its checkpoints hold body, no student network"):
        open_trained(workdir, face="student")
    with pytest.raises(InputError, match="face is 'both'"):
        open_trained(file, face="both")
    with pytest.raises(InputError, match="dtype is 'int8'"):
        open_trained(file, dtype="int8")
    safetensors.numpy.save_file(read_tensors(file), tmp_path / "odd.safetensors", {"preprocessing": "[32"})
    with pytest.raises(InputError, match=r"odd\.safetensors: its metadata 'preprocessing' is no JSON object"):
        open_trained(tmp_path / "odd.safetensors")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")
    with pytest.raises(InputError, match=r"page\.pth is a web page"):
        open_trained(tmp_path / "page.pth")


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    for text, message in (("[1]", "holds no JSON object"), ('{"model": {}}', "has no field data.body_size")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=message):
            open_trained(tmp_path)
    for size in ([32], [32, 0], "32x32", [32.0, 32.0]):
        with pytest.raises(InputError, match="face_size is "):
            networks._size(tmp_path, {"face_size": size}, "face_size")
