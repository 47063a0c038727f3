"""Networks are the same ones wherever they are kept, and come with how images go in."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from jax import tree

from deskpro_jax.checkpoints.selection import METRICS
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.models.checksum import checksum_of
from deskpro_jax.weights import export, load
from deskpro_jax.weights.families import Stream
from deskpro_jax.weights.read import read_tensors
from deskpro_jax.workdir import networks, record
from deskpro_jax.workdir.conversion import import_weights
from deskpro_jax.workdir.export import export_weights
from deskpro_jax.workdir.networks import load_networks
from small_models import write_workdir
from small_networks import drawn, only, save_workdir, small, spec


@pytest.fixture(scope="module")
def workdir(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A body network and a face teacher."""
    folder = tmp_path_factory.mktemp("star") / "workdir"
    return write_workdir(
        folder, tiny_data, "deskpro_star,debug", model__backbone="x0_25", eval__batch=6, eval__flip=False
    )


@pytest.fixture(scope="module")
def alone(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A body network."""
    folder = tmp_path_factory.mktemp("alone") / "workdir"
    return write_workdir(folder, tiny_data, "csa_att,debug", model__backbone="x0_25", eval__flip=False)


@pytest.fixture(scope="module")
def file(alone: Path) -> Path:
    export_weights(alone, alone.parent / "model.safetensors")
    return alone.parent / "model.safetensors"


def test_a_workdir_says_how_its_networks_are_used(workdir: Path) -> None:
    found = load_networks(workdir)
    assert [(spec.name, spec.image, spec.dim) for spec in found.streams] == [
        ("face", "restored_face", 32),
        ("body", "body", 32),
    ]
    assert [phase.name for phase in found.phases] == ["student", "teacher"]
    assert found.face == "teacher"
    assert (found.sizes["body"], found.sizes["face"]) == ((64, 32), (32, 32))
    assert (found.config.eval.flip, found.config.eval.batch, found.config.model.dtype) == (False, 6, "float32")
    assert found.record.sizes_known
    body = load_networks(workdir, face="none", dtype="bfloat16")
    assert [spec.name for spec in body.streams] == ["body"]
    assert [network.module.body_stream.dtype for network in body.networks] == [jnp.bfloat16]
    assert body.checksum != found.checksum  # another embedding


def test_files_and_converted_workdirs_hold_the_same_networks(alone: Path, file: Path, tmp_path: Path) -> None:
    import_weights(file, tmp_path / "converted")
    checksum = load_networks(alone).checksum
    for source in (file, tmp_path / "converted"):
        found = load_networks(source)
        assert found.checksum == checksum
        assert (found.face, found.sizes["body"], found.sizes["face"]) == ("none", (64, 32), (32, 32))
        assert not found.config.eval.flip
        assert found.record.sizes_known
    safetensors.numpy.save_file(read_tensors(file), tmp_path / "bare.safetensors")
    bare = load_networks(tmp_path / "bare.safetensors")
    assert bare.checksum == checksum
    assert (bare.sizes["body"], bare.sizes["face"]) == ((384, 128), (224, 224))  # the paper's
    assert not bare.record.sizes_known


def test_each_stream_may_come_from_its_own_checkpoint(tmp_path: Path) -> None:
    place = tmp_path / "student" / "checkpoints"
    with CheckpointStore(place, best_metric=METRICS, asynchronous=False) as store:
        for step, face, body in ((1, 0.9, 0.1), (2, 0.1, 0.9), (3, 0.2, 0.2)):
            tree = {name: {"scale": jnp.full(2, step)} for name in ("face_stream", "body_stream")}
            metrics = {"mAP": 0.5, "face_mAP": face, "body_mAP": body}
            store.save(step, {"params": tree, "batch_stats": tree}, data={}, wait=True)
            store.add_scores(step, metrics)
    for report, steps in (("last", (3, 3)), ("stitched", (1, 2))):
        state, _ = networks.read_checkpoint(place, report)
        assert tuple(int(state["params"][f"{name}_stream"]["scale"][0]) for name in ("face", "body")) == steps


def test_a_checksum_depends_on_all_but_the_classifiers() -> None:
    def checksum(**changed: float) -> str:
        numbers = {"neck": 1.0, "classifier": 2.0, "mean": 3.0} | changed
        params = {"body_stream": {name: {"scale": np.full(3, numbers[name])} for name in ("neck", "classifier")}}
        return checksum_of([{"params": params, "batch_stats": {"mean": np.full(3, numbers["mean"])}}])

    assert checksum() == checksum(classifier=0)
    assert len({checksum(), checksum(neck=0), checksum(mean=0)}) == 3


def test_a_teacher_is_read_from_where_its_configuration_says(workdir: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(workdir, tmp_path / "moved"))
    (moved / "teacher").rename(tmp_path / "elsewhere")
    config = json.loads((moved / "config.json").read_text())
    config["teacher"]["checkpoint"] = str(tmp_path / "elsewhere")
    (moved / "config.json").write_text(json.dumps(config))
    found = load_networks(moved)
    assert ([spec.name for spec in found.streams], found.face) == (["face", "body"], "teacher")
    with pytest.raises(MissingInputError, match=r"teacher\.checkpoint is .*absent"):
        networks.teacher_checkpoints(tmp_path / "absent")


def test_a_released_teacher_without_counters_runs_the_configured_os_streams(tmp_path: Path) -> None:
    tensors = {n: v for n, v in only("teacher", small("aacd")).items() if not n.endswith("num_batches_tracked")}
    safetensors.numpy.save_file(tensors, tmp_path / "teacher.safetensors")  # nothing in it says which streams run
    folder = tmp_path / "run"
    save_workdir(folder, {"body": spec("body", "released")}, "aacd")
    config = json.loads((folder / "config.json").read_text())
    config["model"]["face"], config["teacher"]["checkpoint"] = "teacher", str(tmp_path / "teacher.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    loaded = load_networks(folder)
    assert [(phase.name, phase.steps) for phase in loaded.phases] == [("student", 7), ("teacher", 0)]
    expected = drawn(spec("teacher"), "aacd")["params"]
    tree.map(np.testing.assert_array_equal, loaded.phases[1].stream_variables("face")["params"], expected)


def test_what_is_not_there_is_named(workdir: Path, file: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no file or folder at .*absent"):
        load_networks(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInputError, match="no checkpoints in"):
        load_networks(tmp_path / "empty")
    with pytest.raises(InputError, match="holds body, no student network"):
        load_networks(file, face="student")
    with pytest.raises(InputError, match="checkpoints of its student phase hold body, no face network"):
        load_networks(workdir, face="student")
    with pytest.raises(InputError, match="face is 'both'"):
        load_networks(file, face="both")
    with pytest.raises(InputError, match="dtype is 'int8'"):
        load_networks(file, dtype="int8")
    safetensors.numpy.save_file(read_tensors(file), tmp_path / "odd.safetensors", {"preprocessing": "[32"})
    with pytest.raises(InputError, match=r"odd\.safetensors: its metadata 'preprocessing' is not a JSON object"):
        load_networks(tmp_path / "odd.safetensors")
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")
    with pytest.raises(InputError, match=r"page\.pth is a web page"):
        load_networks(tmp_path / "page.pth")


def test_a_damaged_configuration_is_named(tmp_path: Path) -> None:
    for text, message in (("[1]", "is damaged"), ('{"model": {}}', "has no field data.body_size")):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(InputError, match=message):
            load_networks(tmp_path)
    for size in ([32], [32, 0], "32x32", [32.0, 32.0]):
        with pytest.raises(InputError, match="face_size is "):
            record._filled(tmp_path, {"data.face_size": size})


def test_the_recorded_configuration_says_what_a_network_is_and_shapes_are_compared(
    workdir: Path, tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(workdir, tmp_path / "moved"))
    config = json.loads((moved / "config.json").read_text())
    for field, value in (("feature_dim", 16), ("attention", "released")):
        changed = {**config, "model": {**config["model"], field: value}}
        (moved / "config.json").write_text(json.dumps(changed))
        with pytest.raises(InputError, match="the student network is not what its configuration says"):
            load_networks(moved)
    (moved / "config.json").unlink()
    with pytest.raises(MissingInputError, match=r"nothing that says what they are: expected config\.json"):
        load_networks(moved)


def test_a_networks_backbone_of_a_fork_is_opened_and_a_missing_one_is_one_line(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lean.py").write_text(Path("docs/examples/new_backbone.py").read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = write_workdir(tmp_path / "run", tiny_data, "csa,debug", model__backbone="lean:PLAIN")
    assert [spec.name for spec in load_networks(folder).streams] == ["body"]
    config = json.loads((folder / "config.json").read_text())
    config["model"]["backbone"] = "not_there:PLAIN"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"model\.backbone .*not_there.* cannot be imported"):
        load_networks(folder)


def test_an_osnet_is_opened_from_its_file_and_from_conversions_of_this_and_earlier_versions(tmp_path: Path) -> None:
    tensors = export.to_tensors(
        "osnet", Stream("osnet", "", "x0_25", "none", 512, None), "abcd", osnet_variables(), 1, {}
    )
    path = tmp_path / "osnet.safetensors"
    safetensors.numpy.save_file(tensors, path)
    opened = load_networks(path)
    assert [(spec.name, spec.parts, spec.dim) for spec in opened.streams] == [("body", ("global",), 512)]
    assert opened.sizes["body"] == (256, 128)  # as torchreid trains it
    import_weights(path, tmp_path / "converted")
    assert load_networks(tmp_path / "converted").checksum == opened.checksum
    # Earlier versions recorded no model for an OSNet, and kept it without classifier and the level of the stream.
    network = {"backbone": "x0_25", "feature_dim": 512}
    record = json.loads((tmp_path / "converted" / "conversion.json").read_text())
    (tmp_path / "old" / "osnet").mkdir(parents=True)
    (tmp_path / "old" / "conversion.json").write_text(
        json.dumps({**record, "model": None, "streams": "abcd", "networks": {"osnet": network}})
    )
    with CheckpointStore(tmp_path / "old" / "osnet" / "checkpoints", best_metric=None, asynchronous=False) as store:
        store.save(0, tree.map(jnp.asarray, osnet_variables()), data={}, wait=True)
    assert load_networks(tmp_path / "old").checksum == opened.checksum


@functools.cache
def osnet_variables() -> dict[str, Any]:
    return load.initial_variables(Stream("osnet", "", "x0_25", "none", 512, None), "abcd", 0)


def test_classifiers_that_were_left_out_are_zeros_in_every_one_of_several_networks() -> None:
    shape = jax.ShapeDtypeStruct((2, 3), jnp.float32)
    head, rest = {"classifier_a": {"kernel": shape}}, {"base": {"kernel": np.ones((2, 2))}}
    shapes = {"body_stream": {"part": {**head, "base": {"kernel": shape}}, "classifier": {"bias": shape}}}
    params = networks._with_classifiers(shapes, {"body_stream": {"part": rest}})["body_stream"]
    np.testing.assert_array_equal(params["part"]["classifier_a"]["kernel"], np.zeros((2, 3)))
    np.testing.assert_array_equal(params["classifier"]["bias"], np.zeros((2, 3)))
    assert params["part"]["base"]["kernel"] is rest["base"]["kernel"]
    own = {"classifier_a": {"kernel": np.ones((2, 3))}}
    assert networks._with_classifiers(shapes, {"body_stream": {"part": own}})["body_stream"]["part"] == own
