"""A file of a network that is not expected is called by that network's name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from deskpro_jax.errors import InputError
from deskpro_jax.weights.families import recognise
from deskpro_jax.weights.looks_like import looks_like

GOLDEN = Path(__file__).parent / "golden"
OSNET = json.loads((GOLDEN / "osnet_manifest.json").read_text())


def zeros(*names: str, size: int = 8) -> dict[str, np.ndarray]:
    return dict.fromkeys(names, np.zeros((size, 1), np.float32))


def resnet(blocks: int, *more: str) -> dict[str, np.ndarray]:
    third = (f"layer3.{i}.conv1.weight" for i in range(blocks))
    return zeros("conv1.weight", "layer1.0.conv1.weight", *third, "layer4.0.conv1.weight", *more)


NETWORKS = {
    "a ResNet-50": resnet(6, "layer1.0.conv3.weight"),
    "a ResNet-18": resnet(2),
    "a ResNet-34": resnet(6),
    "a ResNet-101": resnet(23, "layer1.0.conv3.weight"),
    "a ResNet-IBN-50": resnet(6, "layer1.0.conv3.weight", "layer1.0.bn1.IN.weight"),
    "an SE-ResNet-50": resnet(6, "layer1.0.conv3.weight", "layer1.0.se.fc.0.weight"),
    "an OSNet-AIN x0.25": zeros("conv1.conv.weight", "conv2.0.conv2.0.layers.0.conv1.weight", size=16),
    "an OSNet-IBN x0.5": zeros("conv1.conv.weight", "conv2.0.IN.weight", "conv5.conv.weight", size=32),
    "an OSNet x0.75": zeros("conv1.conv.weight", "conv5.conv.weight", size=48),
    "a vision transformer": zeros("cls_token", "blocks.0.attn.qkv.weight"),
    "a DenseNet": zeros("features.conv0.weight", "features.denseblock1.denselayer1.conv1.weight"),
    "an HRNet": zeros("conv1.weight", "stage2.0.branches.0.0.conv1.weight"),
    "a MobileNetV2": zeros("features.0.0.weight", "features.1.conv.0.0.weight"),
}


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.base.", "model.module."])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_is_named_under_any_prefix(network: str, prefix: str) -> None:
    tensors = {prefix + name: value for name, value in NETWORKS[network].items()}
    assert looks_like(tensors) == network


def test_published_osnets_are_named_with_their_width() -> None:
    for name, shapes in OSNET.items():
        tensors = {key: np.broadcast_to(np.float32(0), shape) for key, shape in shapes.items()}
        kind, _, width = name.removeprefix("osnet_").rpartition("x")
        expected = f"an OSNet{'-IBN' if kind else ''} x{width.replace('_', '.')}"
        assert looks_like(tensors) == expected, name


def test_what_is_no_known_network_is_not_named() -> None:
    assert looks_like({}) is None
    assert looks_like(zeros("a", "b.weight", "myconv1.weight", "mylayer4.0.conv1.weight")) is None


def test_an_unknown_family_is_refused_with_what_it_looks_like() -> None:
    with pytest.raises(InputError, match=r"no known family \(the file looks like a vision transformer\)") as error:
        recognise(NETWORKS["a vision transformer"])
    assert "\n" not in str(error.value)
