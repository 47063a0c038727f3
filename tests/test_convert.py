"""Published files become checkpoints that evaluate as the golden cases say, and trained networks leave as they came."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import runs
from configs import base
from deskpro_jax.checkpoints.selection import read_variables
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.cli.convert import main
from deskpro_jax.errors import InputError
from deskpro_jax.methods import deskpro as methods_deskpro
from deskpro_jax.methods.deskpro import module as deskpro_module
from deskpro_jax.models.contract import Counts
from deskpro_jax.runtime import sharding
from deskpro_jax.weights import export, load
from deskpro_jax.weights.families import Stream, recognise
from deskpro_jax.weights.opening import PLACES
from deskpro_jax.weights.read import read_file, read_tensors
from deskpro_jax.workdir import conversion
from deskpro_jax.workdir.networks import load_networks, read_checkpoint
from golden_networks import deskpro_networks, lightmbn_network, osnet_network
from golden_rule import state_dict
from small_networks import config_of, drawn, only, small, spec
from torch_files import Raw, save, torch_legacy, torch_zip

GOLDEN = Path(__file__).parent / "golden"
FOLDER = Path(os.environ.get("DESKPRO_GOLDEN") or GOLDEN)
WRAPPINGS: dict[str, Callable[[OrderedDict[str, np.ndarray]], bytes]] = {
    "zip": torch_zip,
    "legacy": torch_legacy,
    "state_dict": lambda sd: torch_zip({"state_dict": sd, "epoch": 60, "rank1": 0.5}),
    "data parallel": lambda sd: torch_zip({"model": OrderedDict((f"module.{n}", v) for n, v in sd.items())}),
    "legacy data parallel": lambda sd: torch_legacy({f"module.{n}": v for n, v in sd.items()}),
    "lightning": lambda sd: torch_zip(
        {
            "state_dict": OrderedDict((f"model.{n}", v) for n, v in sd.items()),
            "hyper_parameters": Raw(b"cargparse\nNamespace\n)\x81"),
            "optimizer_states": [{"state": {0: {"exp_avg": np.ones(2)}}}],
        }
    ),
    "safetensors": lambda sd: safetensors.numpy.save(dict(sd)),
}


def golden(name: str) -> tuple[Any, dict[str, Any]]:
    if not (FOLDER / f"{name}.npz").exists():
        pytest.skip(f"{FOLDER} holds no {name}.npz")
    data = np.load(FOLDER / f"{name}.npz")
    return data, json.loads(str(data["meta"]))


def manifest(name: str) -> dict[str, Any]:
    path = FOLDER / f"{name}_manifest.json"
    return json.loads((path if path.exists() else GOLDEN / path.name).read_text())


def filled(shapes: dict[str, list[int]], seed: int, classes: int | None = None) -> OrderedDict[str, np.ndarray]:
    tensors = state_dict(shapes, seed, classes)
    return OrderedDict((n, v.astype(np.float32) if v.dtype.kind == "f" else v) for n, v in tensors.items())


def checkpoint(folder: Path) -> Any:
    """Returns the variables of the checkpoint in a phase's folder."""
    return read_checkpoint(folder / "checkpoints", "last")[0]


def assert_refused(arguments: list[str], target: Path, capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Asserts exit code 2, a message with all words, and that nothing is left."""
    before = sorted(target.parent.iterdir())
    assert main([*arguments, "--to", str(target)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    for word in words:
        assert word in message
    assert sorted(target.parent.iterdir()) == before
    return message


# test_golden.py shows what the networks compute that these are equal to.


def assert_equal(found: Any, expected: Any) -> None:
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_osnet_in_a_file_of_every_wrapping_is_that_of_the_golden_case(wrapping, tmp_path, capsys):
    data, meta = golden("osnet_eval")
    if "osnet_x0_25" not in data.files:
        pytest.skip("the case has no osnet_x0_25")
    source = filled(manifest("osnet")["osnet_x0_25"], meta["weights_seed"], meta["num_classes"])
    path = save(tmp_path / "osnet.pth", WRAPPINGS[wrapping](source))
    assert main([str(path), "--to", str(tmp_path / "out")]) == 0
    assert "note:" not in capsys.readouterr().out
    kept = checkpoint(tmp_path / "out" / "osnet")
    _, expected = osnet_network(meta, "osnet_x0_25")
    assert_equal({collection: tree["body_stream"] for collection, tree in kept.items()}, expected)


def test_lightmbn_in_a_file_is_that_of_the_golden_case(tmp_path):
    _, meta = golden("lmbn_eval")
    source = filled(manifest("lmbn"), meta["weights_seed"], meta["num_classes"])
    path = save(tmp_path / "lmbn.pth", torch_legacy(source))
    assert main([str(path), "--to", str(tmp_path / "out")]) == 0
    kept = checkpoint(tmp_path / "out" / "student")
    assert_equal({name: tree["body_stream"] for name, tree in kept.items()}, lightmbn_network(meta)[1])


@pytest.mark.parametrize("os_streams", ["aacd", "abcd"])
def test_deskpro_in_a_file_is_that_of_the_golden_case(os_streams, tmp_path):
    _, meta = golden(f"deskpro_eval_{os_streams}")
    source = filled(manifest("deskpro"), meta["weights_seed"], meta["num_classes"])
    path = save(tmp_path / "deskpro.pth", torch_zip({"state_dict": source}))
    assert main([str(path), "--to", str(tmp_path / "out"), "--streams", meta["streams"]]) == 0
    _, student, _, teacher = deskpro_networks(meta, jnp.float32)
    assert_equal(checkpoint(tmp_path / "out" / "student"), student)
    assert_equal(checkpoint(tmp_path / "out" / "teacher"), teacher)
    (opened,) = load_networks(tmp_path / "out").networks
    assert opened.module == deskpro_module(meta["num_classes"], os_streams=meta["streams"], attention="released")


def networks_of(folder: Path) -> dict[str, Any]:
    by_place = {
        (phase.name, spec.name): phase
        for phase in load_networks(folder, every_phase=True).phases
        for spec in phase.network.streams
    }
    return {role: by_place[place].stream_variables(place[1]) for role, place in PLACES.items() if place in by_place}


def test_all_networks_of_deskpro_go_through_a_file_unchanged(tmp_path):
    os_streams = "aacd"
    path = save(tmp_path / "deskpro.ckpt", WRAPPINGS["lightning"](OrderedDict(small(os_streams))))
    assert main([str(path), "--to", str(tmp_path / "out")]) == 0
    found = networks_of(tmp_path / "out")
    assert list(found) == ["teacher", "student", "body"]
    for role, variables in found.items():
        attention = "released" if role == "body" else "none"
        assert_equal(variables, drawn(spec(role, attention), os_streams))
    for wrapping, write in WRAPPINGS.items():
        wrapped = recognise(read_tensors(save(tmp_path / "wrapped", write(OrderedDict(small(os_streams))))))
        assert {stream.role for stream in wrapped.streams} == {"teacher", "student", "body"}, wrapping
        assert wrapped.tensors.keys() == small(os_streams).keys()
        assert all(np.array_equal(wrapped.tensors[n], value) for n, value in small(os_streams).items()), wrapping


def model_config(record: dict[str, Any]) -> Any:
    config = base.get_config()
    with config.unlocked():
        config.model.update(record["model"])
    return config


def test_a_converted_folder_is_read_as_a_workdir_and_goes_back_exactly(tmp_path, capsys):
    os_streams = "aacd"
    path = save(tmp_path / "deskpro.pth", torch_zip({"state_dict": OrderedDict(small(os_streams))}))
    out, back = tmp_path / "out", tmp_path / "back.safetensors"
    assert main([str(path), "--to", str(out)]) == 0
    assert f"--config.model.streams={os_streams}" in capsys.readouterr().out
    record = json.loads((out / "conversion.json").read_text())
    assert (record["source"], record["family"], record["streams"]) == ("deskpro.pth", "deskpro", os_streams)
    assert len(record["sha256"]) == 64
    config = model_config(record)
    mesh = sharding.make_mesh(config)
    student, step = read_variables(
        out / "student" / "checkpoints", methods_deskpro.build(config, Counts(3)), mesh, config.eval.report
    )
    assert step == 0
    assert student["params"]["body_stream"]["attention"]["conv1"]["kernel"].shape == (96, 96)
    teacher, _ = read_variables(out / "teacher" / "checkpoints", methods_deskpro.build_teacher(config, Counts(3)), mesh)
    name = "face_net.backbone.2.0.gate.fc1.bias"
    found = teacher["params"]["face_stream"]["trunk"]["block2_0"]["gate"]["fc1"]["bias"]
    np.testing.assert_array_equal(found, small(os_streams)[name])

    assert main([str(out), "--to", str(back)]) == 0
    written = read_file(back)
    assert written.metadata["os_streams"] == os_streams
    assert set(written.tensors) == set(small(os_streams))
    for name, value in small(os_streams).items():
        assert written.tensors[name].dtype == value.dtype
        np.testing.assert_array_equal(written.tensors[name], value, err_msg=name)


def test_a_released_network_without_its_teacher_is_evaluated(tiny_data, tmp_path):
    stream = spec("student", identities=runs.CLASSES, dimension=32)
    lone = export.to_tensors("deskpro", stream, "aacd", drawn(stream, "aacd"), 1, {})
    path = save(tmp_path / "face.pth", torch_zip({"state_dict": lone}))
    assert main([str(path), "--to", str(tmp_path / "out")]) == 0
    record = json.loads((tmp_path / "out" / "conversion.json").read_text())
    model = {f"model__{name}": value for name, value in record["model"].items()}
    results = runs.run(runs.config(tiny_data, **model), tmp_path / "out", "evaluate")
    assert {result.stream for result in results} == {"face"}
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert written["checkpoint"] == {"report": "last", "student": 0}


def test_lightmbn_and_osnet_go_back_exactly(tmp_path):
    stream = spec("body", family="lmbn")
    lone = export.to_tensors("lmbn", stream, "abcd", load.initial_variables(stream, "abcd", 1), 9, {})
    osnet = filled(manifest("osnet")["osnet_x0_25"], 1)
    for name, tensors in (("lmbn", lone), ("osnet", osnet)):
        path = save(tmp_path / f"{name}.pth", torch_zip(tensors))
        assert main([str(path), "--to", str(tmp_path / name)]) == 0
        assert main([str(tmp_path / name), "--to", str(tmp_path / f"{name}.safetensors")]) == 0
        back = read_tensors(tmp_path / f"{name}.safetensors")
        assert set(back) == set(tensors)
        assert all(np.array_equal(back[n], value) for n, value in tensors.items())


def test_a_trained_workdir_leaves_with_names_counters_and_a_model_card(tmp_path, capsys):
    run = tmp_path / "run"
    state: dict[str, Any] = {"params": {}, "batch_stats": {}, "opt_state": {"mu": jnp.ones(2)}}
    for role, module in (("student", "face_stream"), ("body", "body_stream")):
        variables = load.initial_variables(spec(role, "paper" if role == "body" else "none"), "aacd", 0)
        for collection, tree in variables.items():
            state[collection][module] = jax.tree.map(jnp.asarray, tree)
    with CheckpointStore(run / "student" / "checkpoints", best_metric="mAP", asynchronous=False) as store:
        store.save(40, state, data={}, wait=True)
    config = config_of({"student": spec("student"), "body": spec("body", "paper")}, "aacd")
    (run / "config.json").write_text(config.to_json_best_effort())
    result = {"stream": "both", "protocol": "cc", "mAP": 0.5312, "R-1": 0.75, "R-5": 0.9, "R-10": 1.0, "counted": 12}
    (run / "results.json").write_text(json.dumps({"dataset": "synthetic_small", "results": [result]}))
    target = tmp_path / "model.safetensors"
    assert main([str(run), "--to", str(target)]) == 0
    assert "student of step 40" in capsys.readouterr().out
    found = read_file(target)
    assert found.metadata["os_streams"] == "aacd"
    counters = {n: int(v) for n, v in found.tensors.items() if n.endswith("num_batches_tracked")}
    assert counters["nocloth_net.backbone.2.0.conv1.bn.num_batches_tracked"] == 40
    assert counters["nocloth_net.backbone.2.0.conv2a.bn.num_batches_tracked"] == 80
    assert counters["nocloth_net.backbone.2.0.conv2b.0.bn.num_batches_tracked"] == 0
    assert counters["nocloth_net.branches.2.shared.1.num_batches_tracked"] == 80
    kernel = state["params"]["body_stream"]["attention"]["conv"]["kernel"]
    np.testing.assert_array_equal(found.tensors["nocloth_net.spatial_attn.conv.weight"][:, :, 0, 0], kernel.T)
    card = target.with_suffix(".md").read_text()
    for text in ("`synthetic_small`", "| cc | both | 53.1 | 75.0 | 90.0 | 100.0 | 12 |", "`aacd`", "jax 0.", "base_lr"):
        assert text in card, text
    assert_refused([str(run)], target, capsys, "already")


def test_the_names_written_are_the_published_ones():
    shapes = manifest("deskpro")
    wide = Stream("body", "nocloth_net.", "x1_0", "released", 512, 10)
    variables = load.initial_variables(wide, "aacd", 0)
    tensors = export.to_tensors("deskpro", wide, "aacd", variables, 1, {})
    expected = {n: tuple(s) for n, s in shapes.items() if n.startswith("nocloth_net.")}
    assert {n: v.shape for n, v in tensors.items()} == expected


def test_a_new_number_of_identities_is_said(tmp_path, capsys):
    path = save(tmp_path / "deskpro.pth", torch_zip(only("body", small("aacd"))))
    assert main([str(path), "--to", str(tmp_path / "out"), "--identities", "4"]) == 0
    assert "body: classifiers of 3 identities dropped, 7 of 4 drawn anew" in capsys.readouterr().out
    variables, expected = networks_of(tmp_path / "out")["body"], drawn(spec("body", "released"), "aacd")
    assert variables["params"]["classifier"]["kernel"].shape == (7, 8, 4)
    assert_equal(variables["batch_stats"], expected["batch_stats"])  # nothing else changed
    for name in expected["params"].keys() - {"classifier"}:
        assert_equal(variables["params"][name], expected["params"][name])


def test_lightmbn_and_osnet_take_a_new_number_of_identities(tmp_path, capsys):
    stream = spec("body", family="lmbn")
    lone = export.to_tensors("lmbn", stream, "abcd", drawn(stream, "abcd"), 9, {})
    path = save(tmp_path / "lmbn.pth", torch_legacy(lone))
    assert main([str(path), "--to", str(tmp_path / "out"), "--identities", "5"]) == 0
    assert "classifiers of 3 identities dropped, 7 of 5 drawn anew" in capsys.readouterr().out
    params = networks_of(tmp_path / "out")["body"]["params"]
    assert params["classifier"]["kernel"].shape == (7, 8, 5)
    np.testing.assert_array_equal(
        params["trunk"]["stem"]["kernel"], drawn(stream, "abcd")["params"]["trunk"]["stem"]["kernel"]
    )
    osnet = save(tmp_path / "osnet.pth", torch_zip(filled(manifest("osnet")["osnet_x0_25"], 1)))
    assert main([str(osnet), "--to", str(tmp_path / "osnet"), "--identities", "5"]) == 0
    assert "classifiers of 10 identities dropped, new ones of 5 drawn" in capsys.readouterr().out


def test_a_lone_network_needs_its_role(tmp_path, capsys):
    lone = {n.removeprefix("face_net."): v for n, v in small("aacd").items() if n.startswith("face_net.")}
    path = save(tmp_path / "teacher.pth", torch_legacy(lone))
    assert_refused([str(path)], tmp_path / "out", capsys, "give --as")
    assert main([str(path), "--to", str(tmp_path / "out"), "--as", "teacher"]) == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "conversion.json",
        "left_out.safetensors",
        "teacher",
    ]


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path, capsys):
    tensors = only("body", small("aacd"))
    whole = torch_zip(tensors)
    path, out = save(tmp_path / "deskpro.pth", whole), tmp_path / "out"
    assert_refused([str(path), "--streams", "abcd"], out, capsys, str(path), "are of aacd")
    assert_refused([str(path), "--family", "lmbn"], out, capsys, "holds deskpro, not lmbn")
    assert_refused([str(path), "--attention", "paper"], out, capsys, "'released', not 'paper'")
    assert_refused([str(path), "--identities", "0"], out, capsys, "--identities is 0")
    assert_refused([str(path), "--dont-load", "("], out, capsys, "not a regular expression")
    assert_refused([str(path)], tmp_path / "out.safetensors", capsys, "new folder")
    assert_refused([str(tmp_path / "gone.pth")], out, capsys, "gone.pth")
    assert_refused([str(tmp_path)], out, capsys, "is a workdir")
    assert_refused([str(tmp_path)], tmp_path / "x.safetensors", capsys, "no checkpoints")
    for name, data, word in (
        ("half.pth", whole[: len(whole) // 2], "cut-short"),
        ("empty.pth", b"", "is empty"),
        ("page.pth", b"<html>", "web page"),
        ("resnet.pth", torch_zip({"layer1.0.conv1.weight": np.ones((2, 2))}), "no known family"),
        ("evil.pth", torch_zip({"w": Raw(b"cos\nsystem\nX\x02\x00\x00\x00id\x85R")}), "os.system"),
    ):
        assert_refused([str(save(tmp_path / name, data))], out, capsys, name, word)
    broken = dict(tensors)
    del broken["nocloth_net.spatial_attn.conv1.weight"]
    message = assert_refused([str(save(tmp_path / "broken.pth", torch_zip(broken)))], out, capsys, "spatial_attn.conv2")
    assert "broken.pth" in message


def test_averaged_weights_are_taken_when_asked_for(tmp_path, capsys):
    plain = only("body", small("aacd"))
    averaged = {name: value + 1 if value.dtype.kind == "f" else value for name, value in plain.items()}
    path = save(tmp_path / "both.pth", torch_zip({"model": plain, "model_ema": averaged}))
    for flags, shift in (([], 0), (["--weights", "plain"], 0), (["--weights", "ema"], 1)):
        out = tmp_path / f"out{len(flags)}{shift}"
        assert main([str(path), "--to", str(out), *flags]) == 0
        assert ("the EMA weights of the file are read" in capsys.readouterr().out) == bool(shift)
        kernel = load_networks(out).phases[0].variables["params"]["body_stream"]["trunk"]["stem"]["kernel"]
        expected = plain["nocloth_net.backbone.0.conv.weight"].transpose(2, 3, 1, 0) + shift
        np.testing.assert_array_equal(kernel, expected)


def test_weights_that_are_not_finite_and_folders_that_are_no_workdir_are_refused(tmp_path, capsys):
    broken = only("student", small("aacd"))
    name = "lr_face_net.backbone.2.0.conv1.bn.running_var"
    broken[name] = np.full_like(broken[name], np.inf)
    path = save(tmp_path / "broken.pth", torch_zip(broken))
    assert_refused([str(path)], tmp_path / "out", capsys, f"{name}: holds values that are not finite")
    with pytest.raises(InputError, match=f"{name}: holds values"):
        load_networks(path)
    (tmp_path / "unzipped" / "data").mkdir(parents=True)
    (tmp_path / "unzipped" / "data.pkl").touch()
    assert_refused([str(tmp_path / "unzipped")], tmp_path / "out", capsys, "was unzipped")
    with pytest.raises(InputError, match="was unzipped"):
        load_networks(tmp_path / "unzipped")


def test_a_failure_while_writing_leaves_nothing_and_an_occupied_folder_stays(tmp_path, capsys, monkeypatch):
    path = save(tmp_path / "osnet.pth", torch_zip(filled(manifest("osnet")["osnet_x0_25"], 1)))
    occupied = tmp_path / "mine"
    occupied.mkdir()
    (occupied / "notes.txt").write_text("keep")
    assert_refused([str(path)], occupied, capsys, "not empty")
    assert (occupied / "notes.txt").read_text() == "keep"

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(conversion.files, "write_json", fail)
    assert main([str(path), "--to", str(tmp_path / "out")]) == 1
    assert "No space left" in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "osnet.pth"]
    monkeypatch.undo()
    (tmp_path / "out").mkdir()
    assert main([str(path), "--to", str(tmp_path / "out")]) == 0
    monkeypatch.setattr(export.safetensors.numpy, "save", fail)
    assert main([str(tmp_path / "out"), "--to", str(tmp_path / "a.safetensors")]) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mine", "osnet.pth", "out"]


def test_the_command_runs_and_prints_one_line_on_error(tmp_path):
    path = save(tmp_path / "page.pth", b"<!doctype html>")
    command = [sys.executable, "-m", "deskpro_jax.convert", str(path), "--to", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "page.pth is a web page" in done.stderr
