"""Networks of every method go into files under their published names, come back the same, and start other trainings."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from configs import base
from deskpro_jax import Embedder, methods
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.cli.convert import main
from deskpro_jax.configs import variants
from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import CLASSIFIER, PublishedNames, image_sizes
from deskpro_jax.models.initialisers import init_variables
from deskpro_jax.train import initial_weights
from deskpro_jax.weights import published
from deskpro_jax.weights.table import flatten
from torch_files import save, torch_zip

IDENTITIES = 3
SPLIT: Any = SimpleNamespace(image_id=["2_c1_0", "9_c1_0", "10_c1_0"], identity=np.array([2, 9, 10]))
WHOLE = [
    pytest.param(method, names, id=names.variant or f"{method}-{names.family}")
    for method, names in methods.published_names()
    if not names.start
]
STARTS = [
    pytest.param(method, names, id=f"{method}-{names.family}")
    for method, names in methods.published_names()
    if names.start
]


@functools.cache
def configured(method: str, variant: str = "") -> Any:
    """Returns the configuration of a method, with the narrowest backbone that its files may have."""
    config = variants.apply(base.get_config(), f"{variant or method},debug")
    config.train.warmup_epochs = 0
    return config


@functools.cache
def drawn(method: str, variant: str = "", identities: int = IDENTITIES, seed: int = 0) -> Any:
    """Returns the phase of a method, and its variables, statistics away from 0 and 1."""
    config = configured(method, variant)
    (spec,) = methods.phases(config)
    variables = init_variables(spec.network(config, identities).module, seed, image_sizes(config))
    rng = np.random.default_rng(seed)

    def move(path: Any, leaf: np.ndarray) -> np.ndarray:
        moved = path[-1].key in ("mean", "var", "scale")
        return rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32) if moved else leaf

    return spec, jax.tree_util.tree_map_with_path(move, variables)


def body(variables: Any) -> dict[str, Any]:
    return {name: tree["body_stream"] for name, tree in variables.items() if tree}


def tensors_of(method: str, names: PublishedNames) -> dict[str, np.ndarray]:
    """Returns a network as the published code saves it, wrapped as by DataParallel."""
    _, variables = drawn(method, names.variant)
    return published.to_tensors(names, body(variables), 3, {})


def test_every_method_says_how_its_files_are_named() -> None:
    for method in methods.METHODS:
        assert methods.names_of(method) or methods.families_of(method), method


@pytest.mark.parametrize(("method", "names"), WHOLE)
def test_a_file_comes_in_embeds_and_goes_out_the_same(
    method: str, names: PublishedNames, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tensors = tensors_of(method, names)
    wrapped = {f"module.{name}": value for name, value in tensors.items()}
    source = save(tmp_path / "published.pth", torch_zip({"state_dict": wrapped, "epoch": 3}))
    assert main([str(source), "--to", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "conversion.json").read_text())
    assert (record["family"], record["model"]["name"]) == (names.family, method)
    assert main([str(tmp_path / "run"), "--to", str(tmp_path / "again.safetensors")]) == 0
    again = published.recognise(_read(tmp_path / "again.safetensors"), methods.published_names())
    assert again is not None
    assert (again.method, sorted(again.tensors)) == (method, sorted(tensors))
    for name, value in tensors.items():
        np.testing.assert_array_equal(again.tensors[name], value, err_msg=name)
    sources = [Embedder(path) for path in (source, tmp_path / "run", tmp_path / "again.safetensors")]
    assert len({embedder.checksum for embedder in sources}) == 1
    rows = sources[1].embed([np.random.default_rng(1).integers(0, 256, (64, 32, 3), np.uint8)])
    assert rows.shape == (1, sources[1].dimension)
    assert np.isfinite(rows).all()
    capsys.readouterr()


def _read(path: Path) -> dict[str, np.ndarray]:
    from deskpro_jax.weights.read import read_tensors

    return read_tensors(path)


def _start(method: str, path: Path, folder: Path, identities: int, variant: str = "") -> dict[str, Any]:
    """Returns the body stream's variables after `init.body` was read."""
    config = configured(method, variant).copy_and_resolve_references()
    config.init.body = str(path)
    spec, variables = drawn(method, variant, identities, seed=1)
    start = initial_weights.begin(spec, spec.network(config, identities).module, config, folder, SPLIT)
    assert start is not None
    return body(start(variables))


@pytest.mark.parametrize(("method", "names"), WHOLE)
def test_a_file_starts_a_training_of_other_people(method: str, names: PublishedNames, tmp_path: Path) -> None:
    tensors = tensors_of(method, names)
    source = save(tmp_path / "published.pth", torch_zip(tensors))
    started = _start(method, source, tmp_path / "phase", IDENTITIES + 1, names.variant)
    own = body(drawn(method, names.variant)[1])
    fresh = body(drawn(method, names.variant, IDENTITIES + 1, seed=1)[1])
    drawn_anew, kept = (dict(flatten(variables["params"])) for variables in (fresh, own))
    absent = {entry.path for entry in published.entries(names, own)[1]}
    for path, leaf in flatten(started["params"]):
        new = path in absent or any(name.startswith(CLASSIFIER) for name in path)
        np.testing.assert_array_equal(leaf, (drawn_anew if new else kept)[path], err_msg="/".join(path))
    (record,) = json.loads((tmp_path / "phase" / "start.json").read_text()).values()
    assert f"classifiers of {IDENTITIES} identities dropped" in " ".join(record["notes"])


@pytest.mark.parametrize(("method", "names"), STARTS)
def test_a_network_trained_on_imagenet_starts_the_method(method: str, names: PublishedNames, tmp_path: Path) -> None:
    _, variables = drawn(method)
    entries, absent = published.entries(names, body(variables))
    rng = np.random.default_rng(4)
    tensors: dict[str, np.ndarray] = {}
    for entry in entries:
        value = _leaf(body(variables), entry)
        tensors.setdefault(entry.name, rng.standard_normal(_torch(value, entry).shape).astype(np.float32))
    tensors |= {"fc.weight": np.ones((7, 3), np.float32), "fc.bias": np.ones(7, np.float32)} if _has_fc(names) else {}
    started = _start(method, save(tmp_path / "imagenet.pth", torch_zip(tensors)), tmp_path / "phase", IDENTITIES)
    for entry in entries:
        np.testing.assert_array_equal(_torch(_leaf(started, entry), entry), tensors[entry.name], err_msg=entry.name)
    initial = body(drawn(method, "", IDENTITIES, seed=1)[1])
    for entry in absent:
        np.testing.assert_array_equal(_leaf(started, entry), _leaf(initial, entry))


def _has_fc(names: PublishedNames) -> bool:
    return names.ignores("fc.weight")


def _leaf(variables: Any, entry: Any) -> np.ndarray:
    value = variables[entry.collection]
    for part in entry.path:
        value = value[part]
    return np.asarray(value)


def _torch(value: np.ndarray, entry: Any) -> np.ndarray:
    from deskpro_jax.weights import table

    return table.to_torch(value, entry.kind)


def test_a_workdir_starts_the_same_method(tmp_path: Path) -> None:
    method = "hacnn"
    _, variables = drawn(method)
    folder = tmp_path / "run"
    with CheckpointStore(folder / method / "checkpoints", best_metric=None, asynchronous=False) as store:
        store.save(1, jax.tree.map(jax.numpy.asarray, variables), data={}, wait=True)
    (folder / "config.json").write_text(configured(method).to_json_best_effort())
    started = _start(method, folder, tmp_path / "phase", IDENTITIES + 2)
    for name, tree in body(variables)["params"].items():
        if not name.startswith(CLASSIFIER):
            jax.tree.map(np.testing.assert_array_equal, started["params"][name], tree)


def test_a_wrong_file_is_named_by_family(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = methods.names_of("osnet_ain")[0]
    source = save(tmp_path / "ain.pth", torch_zip(tensors_of("osnet_ain", names)))
    with pytest.raises(InputError, match=r"init\.body: .*ain\.pth.* holds .*osnet_ain.*; hacnn starts from hacnn"):
        _start("hacnn", source, tmp_path / "phase", IDENTITIES)
    assert main([str(source), "--to", str(tmp_path / "run"), "--family", "hacnn"]) == 2
    assert "ain.pth: the file holds" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
