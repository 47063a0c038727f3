"""ResNet has torchvision's layers and names; trunk and tail are what methods on it are built of."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import meta

from deskpro_jax.errors import InputError
from deskpro_jax.models import initialisers, resnet
from deskpro_jax.weights import published
from small_backbones import TINY_RESNET, TINY_RESNET_BACKBONE

BOT = json.loads((Path(__file__).parent / "golden" / "methods" / "bot_manifest.json").read_text())["strong_baseline"]
TORCHVISION = {name.removeprefix("base."): shape for name, shape in BOT.items() if name.startswith("base.")}
IBN = dataclasses.replace(TINY_RESNET_BACKBONE, instance_norm=True)


class Whole(nn.Module):
    """A trunk and a tail."""

    backbone: resnet.ResNetBackbone
    last_stride: int = 1
    attention: str = "none"
    stem_relu: bool = True
    dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, images: Any, *, train: bool = False, valid: Any = None) -> tuple[Any, dict[str, Any]]:
        trunk = resnet.ResNetTrunk(self.backbone, self.stem_relu, self.attention, self.dtype, self.remat, name="trunk")
        x, middle = trunk(images, train=train, valid=valid)
        tail = resnet.ResNetTail(self.backbone, self.last_stride, self.dtype, self.remat, name="tail")
        return tail(x, train=train, valid=valid), middle


def drawn(module: nn.Module) -> Any:
    return initialisers.draw(lambda key: module.init(key, jnp.zeros((1, 32, 32, 3))), 0)


def normal(*shape: int) -> Any:
    return jnp.asarray(np.random.default_rng(3).standard_normal(shape), jnp.float32)


@pytest.fixture(scope="module")
def variables() -> Any:
    return drawn(Whole(TINY_RESNET_BACKBONE))


def test_names_and_shapes_are_torchvisions() -> None:
    module = Whole(resnet.resnet("resnet50"))
    shapes = meta.unbox(jax.eval_shape(lambda x: module.init(jax.random.key(0), x), jnp.zeros((1, 32, 32, 3))))
    entries, absent = published.entries(resnet.imagenet_names("nothing"), shapes)
    assert not absent
    assert {entry.name for entry in entries} == {n for n in TORCHVISION if not n.endswith("num_batches_tracked")}


def test_ibn_a_has_its_own_names_in_the_first_three_layers() -> None:
    params = drawn(Whole(dataclasses.replace(IBN, blocks=(1, 1, 2, 1))))["params"]
    assert set(params["trunk"]["layer1_0"]["bn1"]) == {"IN", "BN"}
    assert set(params["tail"]["layer3_1"]["bn1"]) == {"IN", "BN"}
    assert set(params["tail"]["layer4_0"]["bn1"]) == {"scale", "bias"}
    assert set(params["trunk"]["bn1"]) == {"scale", "bias"}


def test_maps_have_the_published_sizes_and_csa_refines_the_middle_one() -> None:
    module = Whole(TINY_RESNET_BACKBONE, last_stride=2, attention="released")
    x, middle = jax.eval_shape(lambda v, x: module.apply(v, x), drawn(module), jnp.zeros((2, 64, 32, 3)))
    assert x.shape == (2, 2, 1, 128)
    assert {name: array.shape for name, array in middle.items()} == {
        "trunk": (2, 4, 2, 64),
        "refined": (2, 4, 2, 64),
        "attention": (2, 4, 2),
    }
    x, _ = jax.eval_shape(
        lambda v, x: Whole(TINY_RESNET_BACKBONE).apply(v, x), drawn(module), jnp.zeros((2, 64, 32, 3))
    )
    assert x.shape == (2, 4, 2, 128)


def test_the_stem_has_a_relu_unless_it_is_left_out(variables: Any) -> None:
    x = normal(1, 32, 32, 3)
    with_relu, _ = Whole(TINY_RESNET_BACKBONE).apply(variables, x)
    without, _ = Whole(TINY_RESNET_BACKBONE, stem_relu=False).apply(variables, x)
    assert np.abs(with_relu - without).max() > 1e-3


def step(variables: Any, x: Any, valid: Any, **fields: Any) -> Any:
    """Returns output, moved statistics and gradients of a step in training."""
    module = Whole(TINY_RESNET_BACKBONE, **fields)

    def loss(params: Any) -> Any:
        (y, _), moved = module.apply({**variables, "params": params}, x, train=True, valid=valid, mutable="batch_stats")
        weight = jnp.ones(len(x)) if valid is None else valid
        return (jnp.square(y).mean((1, 2, 3)) * weight).sum(), (y, moved)

    (_, (y, moved)), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    return y, moved, gradients


def test_padding_changes_nothing(variables: Any) -> None:
    x = normal(3, 32, 32, 3)
    y, *rest = step(variables, x[:2], None)
    padded, *others = step(variables, x.at[2].set(100.0), jnp.array([True, True, False]))
    np.testing.assert_allclose(padded[:2], y, atol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-3), others, rest)


def test_rematerialised_blocks_compute_the_same(variables: Any) -> None:
    x = normal(2, 32, 32, 3)
    plain = step(variables, x, None)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), step(variables, x, None, remat="blocks"), plain
    )


def test_bfloat16_is_near_float32(variables: Any) -> None:
    x = normal(2, 32, 32, 3)
    exact, _ = Whole(TINY_RESNET_BACKBONE).apply(variables, x)
    near, _ = Whole(TINY_RESNET_BACKBONE, dtype=jnp.bfloat16).apply(variables, x)
    assert near.dtype == jnp.bfloat16
    assert np.abs(np.asarray(near, np.float32) - exact).max() < 0.05 * np.abs(exact).max()


def test_a_fork_names_its_own_and_unknown_names_are_errors() -> None:
    assert resnet.resnet(TINY_RESNET) == TINY_RESNET_BACKBONE
    with pytest.raises(InputError, match=r"model\.backbone is 'resnet51'; expected one of resnet50, resnet50_ibn_a"):
        resnet.resnet("resnet51")
    with pytest.raises(InputError, match=r"a Backbone; expected a ResNetBackbone"):
        resnet.resnet("small_backbones:TINY_BACKBONE")


def test_a_file_shows_which_resnet_it_holds() -> None:
    shapes = {name: tuple(shape) for name, shape in TORCHVISION.items()}
    assert resnet.backbone_field(shapes, "conv1.weight") == {"model.backbone": "resnet50"}
    shapes["layer1.0.bn1.IN.weight"] = (32,)
    assert resnet.backbone_field(shapes, "conv1.weight") == {"model.backbone": "resnet50_ibn_a"}
    with pytest.raises(InputError, match=r"conv1\.weight has 48 channels, with instance norms; expected a ResNet"):
        resnet.backbone_field({**shapes, "conv1.weight": (48, 3, 7, 7)}, "conv1.weight")
