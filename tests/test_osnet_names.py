"""OSNet, OSNet-IBN and OSNet-AIN are told apart by the names in their files, and written under the same names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from configs import base
from deskpro_jax import methods
from deskpro_jax.cli.convert import main
from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import Counts
from deskpro_jax.models.osnet import OSNet
from deskpro_jax.weights import published
from deskpro_jax.weights.read import read_file
from deskpro_jax.workdir.networks import load_networks
from golden_rule import state_dict
from torch_files import torch_zip

GOLDEN = Path(__file__).parent / "golden"
REAL = Path(__file__).parents[2] / "shared" / "weights"
NETWORKS = {
    **json.loads((GOLDEN / "osnet_manifest.json").read_text()),
    **json.loads((GOLDEN / "methods" / "osnet_ain_manifest.json").read_text()),
    **json.loads((GOLDEN / "methods" / "osnet_ibn_manifest.json").read_text()),
}
NAMES = [name for name in NETWORKS if name.startswith("osnet")]


def method_and_width(name: str) -> tuple[str, str]:
    method, _, width = name.partition("_x")
    return method, f"x{width}"


def tensors_of(name: str) -> dict[str, np.ndarray]:
    return {n: np.float32(v) if v.dtype.kind == "f" else v for n, v in state_dict(NETWORKS[name], 3).items()}


@pytest.mark.parametrize("wrapper", ["", "module."])
@pytest.mark.parametrize("name", NAMES)
def test_a_file_says_which_network_it_is(name: str, wrapper: str) -> None:
    shapes = {wrapper + tensor: np.broadcast_to(np.float32(0), shape) for tensor, shape in NETWORKS[name].items()}
    file = published.recognise(shapes, methods.published_names())
    assert file is not None
    method, width = method_and_width(name)
    assert file.method == method
    assert file.fields == {"model.backbone": width, "model.feature_dim": 512}
    config = base.get_config()
    config.update_from_flattened_dict({**methods.variants()[method], **file.fields})
    network = methods.find_method(method).network(config, Counts(NETWORKS[name]["classifier.weight"][0]))
    template = meta.unbox(jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))))
    there, absent = published.entries(file.names, template)
    assert {entry.name for entry in there} == {n for n in NETWORKS[name] if not n.endswith("num_batches_tracked")}
    assert not absent


@pytest.mark.parametrize("name", ["osnet_ain_x0_25", "osnet_x0_25"])
def test_a_file_comes_back_with_all_tensors_equal(name: str, tmp_path: Path) -> None:
    tensors = tensors_of(name)
    wrapped = {"state_dict": {f"module.{n}": value for n, value in tensors.items()}, "epoch": 100}
    (tmp_path / "model.pth.tar").write_bytes(torch_zip(wrapped))
    assert_comes_back(tmp_path / "model.pth.tar", tensors, tmp_path)
    opened = load_networks(tmp_path / "model.pth.tar")
    assert opened.config.model.name == method_and_width(name)[0]
    assert opened.config.eval.distance == ("cosine" if "ain" in name else "euclidean")


@pytest.mark.parametrize("name", ["market1501", "msmt17"])
def test_real_files_come_back_with_all_tensors_equal(name: str, tmp_path: Path) -> None:
    path = REAL / f"osnet_x0_25_{name}.pth"
    if not path.exists():
        pytest.skip("published weights are not here")
    assert_comes_back(path, read_file(path).tensors, tmp_path)


def assert_comes_back(path: Path, tensors: Any, folder: Path) -> None:
    assert main([str(path), "--to", str(folder / "converted")]) == 0
    assert main([str(folder / "converted"), "--to", str(folder / "back.safetensors")]) == 0
    back = read_file(folder / "back.safetensors").tensors
    assert set(back) == set(tensors)
    for tensor, value in tensors.items():
        np.testing.assert_array_equal(back[tensor], value, err_msg=tensor)


def test_a_width_that_no_osnet_has_is_refused() -> None:
    shapes = {**NETWORKS["osnet_x0_25"], "conv1.conv.weight": (20, 3, 7, 7)}
    file = published.recognise({n: np.zeros(s) for n, s in shapes.items()}, methods.published_names())
    assert file is not None
    with pytest.raises(InputError, match=r"conv1\.conv\.weight has 20 channels; expected .* x0_25 \(16\)"):
        _ = file.fields


def test_blocks_without_the_second_branch_have_no_published_names() -> None:
    network = OSNet("x0_25", 5, 16, "aacd")
    template = meta.unbox(jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))))
    with pytest.raises(InputError, match=r"holds 3 tensors, files of osnet have 4 .*model\.streams"):
        published.entries(methods.names_of("osnet")[0], template)
