"""A phase begins with the weights that config.init names, says what they lacked, and refuses what does not fit."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
from ml_collections import ConfigDict

from configs import base
from deskpro_jax.cli.convert import main
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.methods import deskpro
from deskpro_jax.models.initialisers import init_variables
from deskpro_jax.train import initial_weights
from deskpro_jax.weights import export
from golden_rule import state_dict
from small_networks import DIMENSION, IDENTITIES, drawn, save_workdir, small, spec
from torch_files import save, torch_legacy, torch_zip

GOLDEN = Path(__file__).parent / "golden"
SPLIT: Any = SimpleNamespace(image_id=["2_c1_0", "9_c1_0", "10_c1_0"], identity=np.array([2, 9, 10]))


def configuration(**fields: Any) -> ConfigDict:
    c = base.get_config()
    given = {name.replace("__", "."): value for name, value in fields.items()}
    small_model = {"model.backbone": "x0_25", "model.feature_dim": DIMENSION, "model.attention": "released"}
    c.update_from_flattened_dict({**small_model, **given})
    return c


def begin(c: ConfigDict, folder: Path, phase: str = "student", identities: int = IDENTITIES) -> tuple[Any, Any]:
    """Returns the drawn variables of a phase and those it begins with."""
    phase_spec = next(spec for spec in deskpro.phases(c) if spec.name == phase)
    module = phase_spec.network(c, identities).module
    first = initial_weights.begin(phase_spec, module, c, folder, SPLIT)
    values = init_variables(module, 3)
    return values, None if first is None else first(values)


def same(found: Any, expected: Any) -> bool:
    return all(map(np.array_equal, jax.tree.leaves(found), jax.tree.leaves(expected)))


def stream(variables: Any, name: str) -> Any:
    return {collection: tree[name] for collection, tree in variables.items()}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights of every family, as files."""
    folder = tmp_path_factory.mktemp("files")
    shapes = json.loads((GOLDEN / "osnet_manifest.json").read_text())["osnet_x0_25"]
    osnet = {n: v.astype(np.float32) if v.dtype.kind == "f" else v for n, v in state_dict(shapes, 1).items()}
    save(folder / "osnet.pth", torch_legacy(osnet))
    lone = spec("body", family="lmbn")
    save(folder / "lmbn.pth", torch_zip(export.to_tensors("lmbn", lone, "abcd", drawn(lone, "abcd", 4), 9, {})))
    save(folder / "deskpro.pth", torch_zip({"state_dict": dict(small("abcd"))}))
    metadata = {"os_streams": "abcd", "class_order": "number"}
    (folder / "ours.safetensors").write_bytes(safetensors.numpy.save(dict(small("abcd")), metadata=metadata))
    (folder / "page.pth").write_bytes(b"<html>")
    save(folder / "other.pth", torch_zip({"layer1.0.conv1.weight": np.ones((2, 2), np.float32)}))
    return folder


def test_without_files_nothing_is_begun_with(tmp_path: Path) -> None:
    assert begin(configuration(), tmp_path)[1] is None


def test_an_osnet_fills_the_trunk_and_all_three_branches(files: Path, tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        before, after = begin(configuration(init__body=str(files / "osnet.pth")), tmp_path)
    shapes = json.loads((GOLDEN / "osnet_manifest.json").read_text())["osnet_x0_25"]
    osnet = state_dict(shapes, 1)
    body = stream(after, "body_stream")
    stem = osnet["conv1.conv.weight"].astype(np.float32).transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(body["params"]["trunk"]["stem"]["kernel"], stem)
    last = osnet["conv5.conv.weight"].astype(np.float32)[:, :, 0, 0].T
    for branch in range(3):
        np.testing.assert_array_equal(body["params"]["branches"]["conv5"]["conv"]["kernel"][branch], last)
    mean = osnet["conv4.1.conv2b.1.bn.running_mean"].astype(np.float32)
    for branch in range(3):
        np.testing.assert_array_equal(
            body["batch_stats"]["branches"]["block4_1"]["stage1"]["bn"]["mean"][branch, 0], mean
        )
    for name in ("attention", "drop_block", "reduction", "shared", "neck", "classifier"):
        assert same(body["params"][name], before["params"]["body_stream"][name]), name
    assert same(stream(after, "face_stream"), stream(before, "face_stream"))  # not asked for
    assert "body: starts from osnet.pth (PyTorch legacy pickle, osnet)" in caplog.text
    assert "the file has nothing for attention, classifier, drop_block, neck, reduction, shared" in caplog.text
    record = json.loads((tmp_path / "start.json").read_text())
    assert (record["body"]["source"], len(record["body"]["sha256"])) == ("osnet.pth", 64)


def test_all_three_networks_begin_with_a_deskpro_file(files: Path, tmp_path: Path) -> None:
    path = str(files / "ours.safetensors")
    c = configuration(init__body=path, init__face=path, init__teacher=path)
    _, after = begin(c, tmp_path)
    assert same(stream(after, "body_stream"), drawn(spec("body", "released"), "abcd"))
    assert same(stream(after, "face_stream"), drawn(spec("student"), "abcd"))
    _, teacher = begin(c, tmp_path / "teacher", "teacher")
    assert same(stream(teacher, "face_stream"), drawn(spec("teacher"), "abcd"))


def test_a_released_files_classes_are_put_into_order(files: Path, tmp_path: Path, caplog: Any) -> None:
    with caplog.at_level(logging.INFO):
        _, after = begin(configuration(init__face=str(files / "deskpro.pth")), tmp_path)
    kernel = drawn(spec("student"), "abcd")["params"]["classifier"]["kernel"]
    # As text 10 comes before 2 and 9.
    np.testing.assert_array_equal(after["params"]["face_stream"]["classifier"]["kernel"], kernel[..., [1, 2, 0]])
    assert "count identities by the text of their names" in caplog.text


def test_another_number_of_identities_draws_classifiers_anew_and_says_so(
    files: Path, tmp_path: Path, caplog: Any
) -> None:
    with caplog.at_level(logging.INFO):
        before, after = begin(configuration(init__body=str(files / "lmbn.pth")), tmp_path, identities=5)
    body, expected = after["params"]["body_stream"], drawn(spec("body", family="lmbn"), "abcd", 4)["params"]
    assert same(body["classifier"], before["params"]["body_stream"]["classifier"])
    assert same(body["attention"], before["params"]["body_stream"]["attention"])
    assert same(body["trunk"], expected["trunk"])
    assert same(body["neck"], expected["neck"])
    assert "classifiers of 3 identities dropped, 7 of 5 drawn anew" in caplog.text
    assert "the file has nothing for attention" in caplog.text


def test_dont_load_keeps_drawn_values_and_an_idle_pattern_is_said(files: Path, tmp_path: Path, caplog: Any) -> None:
    patterns = (r"nocloth_net\.spatial_attn\..*", "nothing")
    with caplog.at_level(logging.INFO):
        c = configuration(init__body=str(files / "ours.safetensors"), init__dont_load=patterns)
        before, after = begin(c, tmp_path)
    assert same(after["params"]["body_stream"]["attention"], before["params"]["body_stream"]["attention"])
    assert same(after["params"]["body_stream"]["trunk"], drawn(spec("body", "released"), "abcd")["params"]["trunk"])
    assert "2 tensors left out as dont_load says" in caplog.text
    assert "init.dont_load: 'nothing' matches no name in ours.safetensors" in caplog.text


def test_a_trained_and_a_converted_workdir_are_sources_too(files: Path, tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    networks = save_workdir(trained, {"student": spec("student")}, "abcd")
    _, after = begin(configuration(init__face=str(trained), model__body=False), tmp_path / "one")
    assert same(stream(after, "face_stream"), networks["student"])  # by number, as trained here
    assert main([str(files / "lmbn.pth"), "--to", str(tmp_path / "converted")]) == 0
    _, after = begin(configuration(init__body=str(tmp_path / "converted")), tmp_path / "two")
    assert same(after["batch_stats"]["body_stream"], drawn(spec("body", family="lmbn"), "abcd", 4)["batch_stats"])


def test_a_phase_that_goes_on_does_not_look_at_the_file(tmp_path: Path) -> None:
    c = configuration(init__body=str(tmp_path / "gone.pth"))
    student = deskpro.phases(c)[-1]
    module = student.network(c, IDENTITIES).module
    with pytest.raises(MissingInputError, match=r"init\.body: no file or workdir at .*gone\.pth"):
        initial_weights.begin(student, module, c, tmp_path, SPLIT)
    (tmp_path / "checkpoints" / "12").mkdir(parents=True)
    assert initial_weights.begin(student, module, c, tmp_path, SPLIT) is not None


@pytest.mark.parametrize(
    ("field", "file", "fields", "words"),
    [
        ("body", "page.pth", {}, "is a web page"),
        ("body", "other.pth", {}, "no known family"),
        ("face", "lmbn.pth", {"model__backbone": "x0_5"}, r"shape \(16, 3, 7, 7\), the model has \(32, 3, 7, 7\)"),
        ("body", "deskpro.pth", {"model__streams": "aacd"}, r"are of abcd .* set streams .* to abcd"),
        ("body", "deskpro.pth", {"init__dont_load": ("(",)}, "not a regular expression"),
        ("body", "deskpro.pth", {"model__feature_dim": 16}, "shape"),
    ],
)
def test_what_does_not_fit_is_refused_with_field_and_file(
    field: str, file: str, fields: dict[str, Any], words: str, files: Path, tmp_path: Path
) -> None:
    c = configuration(**{f"init__{field}": str(files / file)}, **fields)
    with pytest.raises(InputError, match=rf"(?s)init\.{field}: .*{file}.*{words}"):
        begin(c, tmp_path)
    assert not (tmp_path / "start.json").exists()


def test_weights_for_a_network_that_is_not_trained_are_said_to_be_unused(
    files: Path, tmp_path: Path, caplog: Any
) -> None:
    c = configuration(model__face="none", init__face=str(files / "page.pth"))
    assert begin(c, tmp_path)[1] is None
    initial_weights.warn_of_unused(c, deskpro.phases(c))
    assert "init.face is not used: this run trains no such network" in caplog.text
