"""What leaves as a program computes what the trained network does: StableHLO in jax alone, ONNX in onnxruntime."""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import export

import runs
from deskpro_jax.cli.convert import main
from deskpro_jax.data.load.augment import MEAN, STD
from deskpro_jax.errors import InputError
from deskpro_jax.models import embeddings
from deskpro_jax.models.contract import StreamSpec
from deskpro_jax.models.lmbn import PARTS, LightMBN
from deskpro_jax.serving import onnx_file, program
from deskpro_jax.serving.fold import fold
from deskpro_jax.storage import files
from deskpro_jax.workdir.networks import LoadedNetworks, load_networks
from small_networks import DIMENSION, drawn, save_workdir, spec

SIZES = {"body": (64, 32), "face": (32, 32)}
BATCH = 5
STREAMS = [StreamSpec(name, name, PARTS, (), DIMENSION) for name in ("face", "body")]
HAS_FACE = np.array([True, False, True, True, False])


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the released code's choices with all three networks."""
    folder = tmp_path_factory.mktemp("run")
    save_workdir(
        folder, {"student": spec("student"), "body": spec("body", "released"), "teacher": spec("teacher")}, "aacd"
    )
    config = json.loads((folder / "config.json").read_text())
    config["data"] |= {"body_size": SIZES["body"], "face_size": SIZES["face"], "name": "celeb"}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(autouse=True)
def read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the tests read each workdir once."""
    monkeypatch.setattr(program, "load_networks", load_cached)


@functools.cache
def load_cached(folder: Path, **options: Any) -> LoadedNetworks:
    return load_networks(folder, **options)


@functools.cache
def network(attention: str) -> Callable[..., Any]:
    """Returns the network itself, as training evaluates it: variables and normalised images -> parts."""
    module = LightMBN(3, "x0_25", "aacd", attention, DIMENSION)
    return jax.jit(lambda variables, x: module.apply(variables, x, train=False)[0]["embeddings"])


def features(role: str, normalised: np.ndarray) -> Any:
    attention = "released" if role == "body" else "none"
    variables = drawn(spec(role, attention), "aacd", ["student", "body", "teacher"].index(role))
    return network(attention)(variables, normalised)


@functools.cache
def images(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint8 images, and the same normalised."""
    raw = np.random.default_rng(len(name)).integers(0, 256, (BATCH, *SIZES[name], 3), np.uint8)
    return raw, ((raw.astype(np.float32) / 255 - MEAN) / STD).astype(np.float32)


def arguments(held: program.Program) -> dict[str, np.ndarray]:
    given = {e.name: images(e.name)[e.dtype == "float32"] for e in held.inputs if e.name != "has_face"}
    return {**given, **({"has_face": HAS_FACE} if "face" in given else {})}


@functools.cache
def expected(roles: tuple[str, ...], flip: bool) -> np.ndarray:
    plain, mirrored = {}, {}
    for role in roles:
        name = "body" if role == "body" else "face"
        normalised = images(name)[1]
        plain[name] = features(role, normalised)
        if flip:
            mirrored[name] = features(role, np.ascontiguousarray(normalised[:, :, ::-1]))
    return np.asarray(
        embeddings.combine(
            [spec for spec in STREAMS if spec.name in plain], plain, mirrored if flip else None, has_face=HAS_FACE
        )
    )


CHOICES: list[tuple[tuple[str, ...], dict[str, Any]]] = [
    (("student", "body"), {}),
    (("student", "body"), {"network": "both", "images": "float", "flip": False}),
    (("body",), {"network": "body", "flip": False}),
    (("student",), {"network": "face", "images": "float"}),
    (("teacher",), {"network": "teacher"}),
    (("teacher", "body"), {"network": "star"}),
]


def read(workdir: Path, choice: dict[str, Any]) -> program.Program:
    return _read(workdir, tuple(choice.items()))


@functools.cache
def _read(workdir: Path, choice: tuple[tuple[str, Any], ...]) -> program.Program:
    return program.read_program(workdir, **dict(choice))


def test_a_program_says_what_goes_in_and_comes_out(workdir: Path) -> None:
    held = read(workdir, {})
    assert [(e.name, e.dtype, e.shape) for e in held.inputs] == [
        ("body", "uint8", (64, 32, 3)),
        ("face", "uint8", (32, 32, 3)),
        ("has_face", "bool", ()),
    ]
    assert held.dimension == 2 * 7 * DIMENSION
    assert (held.flip, held.loaded.config.model.streams, held.loaded.steps) == (True, "aacd", {"student": 7})
    lone = read(workdir, {"network": "body", "images": "float", "flip": False, "body_size": (384, 128)})
    assert [(e.name, e.dtype, e.shape) for e in lone.inputs] == [("body", "float32", (384, 128, 3))]
    assert (lone.dimension, lone.flip) == (7 * DIMENSION, False)


def test_the_configuration_decides_what_is_served_by_default(workdir: Path, monkeypatch: Any) -> None:
    whole = load_cached(workdir, every_phase=True)

    def served(**changes: Any) -> program.Program:
        """Returns what is served where the configuration has these fields of the model."""
        config = whole.config.copy_and_resolve_references()
        config.model.update(changes)
        config.eval.flip = False
        monkeypatch.setattr(program, "load_networks", lambda *_, **options: load_networks(workdir, config=config))
        return program.read_program(workdir)

    for model, images in (
        ({"face": "teacher"}, ["restored_face", "body"]),
        ({"body": False}, ["face"]),
        ({"face": "none"}, ["body"]),
        ({"body": False, "face": "teacher"}, ["restored_face"]),
    ):
        held = served(**model)
        assert [stream.image for stream in held.streams] == images
        assert not held.flip


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        ({"network": "head"}, "network is 'head'; expected one of both, body, face, teacher, star"),
        ({"images": "png"}, "images are 'png'; expected one of uint8, float"),
        ({"body_size": (100, 32)}, r"body size is \(100, 32\); expected height and width in multiples of 16"),
        ({"report": "best"}, "eval.report is 'best'"),
    ],
)
def test_an_unknown_choice_is_refused(choice: dict[str, Any], words: str, workdir: Path) -> None:
    with pytest.raises(InputError, match=words):
        read(workdir, choice)


def test_folding_changes_convolutions_and_shifts_alone() -> None:
    before = drawn(spec("body", "paper"), "abcd")
    after = fold(before)
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, before)
    for name in ("attention", "neck", "reduction", "classifier"):
        jax.tree.map(np.testing.assert_array_equal, after["params"][name], before["params"][name])
    unit, folded = (tree["params"]["trunk"]["block2_0"]["conv1"] for tree in (before, after))
    stats = before["batch_stats"]["trunk"]["block2_0"]["conv1"]["bn"]
    factor = unit["bn"]["scale"] / np.sqrt(stats["var"] + 1e-5)
    np.testing.assert_allclose(folded["conv"]["kernel"], unit["conv"]["kernel"] * factor, rtol=1e-6)
    np.testing.assert_allclose(folded["bn"]["bias"], unit["bn"]["bias"] - stats["mean"] * factor, atol=1e-6)


def test_a_stablehlo_file_embeds_with_jax_alone(workdir: Path, tmp_path: Path, capsys: Any) -> None:
    target = tmp_path / "face.stablehlo"
    assert main([str(workdir), "--to", str(target), "--network", "face"]) == 0
    assert "inputs: face uint8[batch, 32, 32, 3], has_face bool[batch]" in capsys.readouterr().out
    loaded = export.deserialize(bytearray(target.read_bytes()))
    assert loaded.platforms == ("cpu", "cuda", "tpu")
    assert [str(aval) for aval in loaded.in_avals] == ["uint8[batch,32,32,3]", "bool[batch]"]
    about = json.loads((tmp_path / "face.stablehlo.json").read_text())
    assert about["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert (about["file"], about["format"], about["bytes"]) == ("face.stablehlo", "stablehlo", target.stat().st_size)
    assert [(e["name"], e["shape"]) for e in about["inputs"]] == [
        ("face", ["batch", 32, 32, 3]),
        ("has_face", ["batch"]),
    ]
    assert about["outputs"][0]["shape"] == ["batch", 7 * DIMENSION]
    assert (about["platforms"], about["flip"]) == (["cpu", "cuda", "tpu"], True)
    assert (about["mean"], about["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert (about["networks"][0]["role"], about["networks"][0]["step"]) == ("student", 7)
    assert (about["dataset"], about["versions"]["jax"]) == ("celeb", jax.__version__)

    # The example of the docs, in a process that knows nothing of this package.
    for name, value in arguments(read(workdir, {"network": "face"})).items():
        np.save(tmp_path / f"{name}.npy", value)
    script = str(runs.ROOT / "docs" / "serve_stablehlo.py")
    checked = (
        f"import runpy, sys; runpy.run_path({script!r})\n"
        "found = {'flax', 'deskpro_jax', 'orbax'} & set(sys.modules)\n"
        "sys.exit(f'needs {found}' if found else 0)"
    )
    names = [str(tmp_path / name) for name in ("face.stablehlo", "out.npy", "face.npy", "has_face.npy")]
    env = runs.environment()
    env.pop("PYTHONPATH", None)
    run = functools.partial(subprocess.run, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    done = run([sys.executable, "-c", checked, *names])
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(found, expected(("student",), True), atol=1e-5)
    assert not found[~HAS_FACE].any()
    target.write_bytes(target.read_bytes()[:-1])
    done = run([sys.executable, script, *names])
    assert done.returncode == 1
    assert "face.stablehlo is damaged" in done.stderr


@pytest.mark.parametrize("form", ["onnx_osnet", "onnx_graph"])
@pytest.mark.parametrize(("roles", "choice"), CHOICES)
def test_an_onnx_network_computes_what_the_network_does(
    roles: tuple[str, ...], choice: dict[str, Any], form: str, workdir: Path
) -> None:
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")

    held = read(workdir, choice)
    built = importlib.import_module(f"deskpro_jax.serving.{form}").build(held)
    session = runtime.InferenceSession(built.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [entry.name for entry in session.get_inputs()] == [entry.name for entry in held.inputs]
    assert session.get_inputs()[0].shape[0] == "batch"
    for batch in (1, BATCH):
        given = {name: value[:batch] for name, value in arguments(held).items()}
        (found,) = session.run(["embeddings"], given)
        np.testing.assert_allclose(found, expected(roles, held.flip)[:batch], atol=1e-5)


def test_the_command_writes_an_onnx_file_that_it_has_checked(tmp_path: Path, capsys: Any) -> None:
    # With instance norms, all four streams, and an odd number of rows, of which both halves have the middle one.
    pytest.importorskip("onnxruntime")
    save_workdir(tmp_path / "run", {"body": spec("body", "paper", backbone="ibn_x0_25")}, "abcd")
    target = tmp_path / "out" / "body.onnx"
    target.parent.mkdir()
    assert main([str(tmp_path / "run"), "--to", str(target), "--body-size", "48x32"]) == 0
    assert "differs from flax by at most" in capsys.readouterr().out
    about = json.loads((target.parent / "body.onnx.json").read_text())
    assert about["difference_from_flax"] < 1e-5
    assert about["checked_batches"] == [1, 5]
    assert about["sha256"] == hashlib.sha256(target.read_bytes()).hexdigest()
    assert sorted(p.name for p in target.parent.iterdir()) == ["body.onnx", "body.onnx.json"]


def refused(arguments: list[str], folder: Path, capsys: Any) -> str:
    """Returns the error of a command that ends with code 2 and leaves `folder` as it was."""
    before = sorted(folder.iterdir())
    assert main(arguments) == 2
    assert sorted(folder.iterdir()) == before
    return str(capsys.readouterr().err)


def test_wrong_commands_say_what_is_wrong_and_write_nothing(workdir: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "there.onnx.json").write_text("{}")
    (tmp_path / "weights.pth").write_bytes(b"<html>")
    source, to = str(workdir), lambda name: ["--to", str(tmp_path / name)]
    assert "already exists: choose another name" in refused([source, *to("there.onnx")], tmp_path, capsys)
    assert "--to takes FILE.safetensors, FILE.stablehlo, FILE.onnx" in refused([source, *to("a.pb")], tmp_path, capsys)
    assert "no folder" in refused([source, "--to", str(tmp_path / "gone" / "a.onnx")], tmp_path, capsys)
    assert "--identities cannot be used for a workdir" in refused(
        [source, *to("a.onnx"), "--identities", "4"], tmp_path, capsys
    )
    assert "--flip cannot be used for .safetensors" in refused(
        [source, *to("a.safetensors"), "--flip"], tmp_path, capsys
    )
    assert "--family cannot be used for .onnx" in refused([source, *to("a.onnx"), "--family", "lmbn"], tmp_path, capsys)
    weights = str(tmp_path / "weights.pth")
    assert "--network cannot be used for a weights file" in refused(
        [weights, *to("out"), "--network", "body"], tmp_path, capsys
    )
    assert "Convert that to" in refused([weights, *to("a.stablehlo")], tmp_path, capsys)
    (tmp_path / "empty").mkdir()
    assert "no checkpoints in" in refused([str(tmp_path / "empty"), *to("a.stablehlo")], tmp_path, capsys)
    with pytest.raises(SystemExit) as stop:
        main([source, *to("a.onnx"), "--body-size", "384"])
    assert stop.value.code == 2
    assert "expected HEIGHTxWIDTH" in capsys.readouterr().err


def test_a_network_that_is_not_there_is_named(workdir: Path, tmp_path: Path, capsys: Any) -> None:
    copy = Path(shutil.copytree(workdir, tmp_path / "run"))  # read anew
    shutil.rmtree(copy / "teacher")
    message = refused([str(copy), "--to", str(tmp_path / "a.onnx"), "--network", "star"], tmp_path, capsys)
    assert "no checkpoints in" in message
    assert "Choose another --network" in message


def test_without_the_extras_packages_the_command_says_what_to_install(
    workdir: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    message = refused([str(workdir), "--to", str(tmp_path / "a.onnx")], tmp_path, capsys)
    assert "pip install 'deskpro_jax[onnx]'" in message


def test_an_onnx_network_that_differs_is_not_written(
    workdir: Path, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(onnx_file, "_difference", lambda *_: float("nan"))
    assert main([str(workdir), "--to", str(tmp_path / "a.onnx"), "--network", "body"]) == 1
    assert "differs from flax's by nan" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_files_are_written_together_or_not_at_all(tmp_path: Path, monkeypatch: Any) -> None:
    files.write_files({tmp_path / "a.json": b"{}", tmp_path / "a": b"1"})
    assert (tmp_path / "a").read_bytes() == b"1"
    original = Path.write_bytes

    def fail(self: Path, content: bytes) -> int:
        original(self, content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space left"):
        files.write_files({tmp_path / "b.json": b"{}", tmp_path / "b": b"1"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "a.json"]


@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGKILL"])
def test_a_killed_export_leaves_nothing_under_the_targets_name(signal_name: str, workdir: Path, tmp_path: Path) -> None:
    # The signal comes when everything is written under temporary names, and nothing has its own yet.
    script = (
        "import os, pathlib, runpy, signal, sys\n"
        f"pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.{signal_name})\n"
        f"sys.argv = ['convert', {str(workdir)!r}, '--to', {str(tmp_path / 'a.safetensors')!r}]\n"
        "runpy.run_module('deskpro_jax.convert', run_name='__main__')\n"
    )
    env = {**os.environ, "PYTHONPATH": str(runs.ROOT)}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, check=False)
    left = [p.name for p in tmp_path.iterdir() if not p.name.startswith(".")]
    assert left == []
    if signal_name == "SIGTERM":
        assert done.returncode == 143
        assert not list(tmp_path.iterdir())
    else:
        assert done.returncode == -signal.SIGKILL
