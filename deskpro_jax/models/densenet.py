"""DenseNet (Huang et al., CVPR 2017) with torchvision's layers and names: dense layers, transitions, CSA between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from deskpro_jax.config import user_modules
from deskpro_jax.errors import InputError
from deskpro_jax.models import layers
from deskpro_jax.models.attention import SpatialAttention
from deskpro_jax.models.contract import PublishedNames
from deskpro_jax.models.initialisers import Initialiser, normal
from deskpro_jax.models.remat import run_block
from deskpro_jax.models.resnet import Conv3x3

_MIDDLE = 2  # the transition after which a map is a sixteenth of the image, where CSA stands


@dataclass(frozen=True)
class DenseNetBackbone:
    """A DenseNet.

    Attributes:
        blocks: dense layers of each block; a transition halves channels, height and width between two blocks.
        growth: channels that a dense layer adds; it computes them from four times as many.
        stem: channels after the first convolution.
    """

    blocks: tuple[int, ...]
    growth: int = 32
    stem: int = 64

    @property
    def features(self) -> int:
        """Number of channels of the last map."""
        channels = self.stem
        for number, depth in enumerate(self.blocks):
            channels = (channels if number == 0 else channels // 2) + depth * self.growth
        return channels


DENSENETS = {
    "densenet121": DenseNetBackbone((6, 12, 24, 16)),
    "densenet12_x0_25": DenseNetBackbone((1, 1, 1, 1), growth=8, stem=16),  # for debug runs
}


def densenet(name: str) -> DenseNetBackbone:
    """Returns the DenseNet called `name`, or the one of a fork that it names as "module:name".

    Raises:
        InputError: there is no such DenseNet.
    """
    return user_modules.find_in("model.backbone", name, DENSENETS, DenseNetBackbone)


def _kaiming_fan_in(fan_in: int) -> Initialiser:
    return normal((2.0 / fan_in) ** 0.5)


class DenseLayer(nn.Module):
    """BatchNorm, ReLU, 1x1 convolution, BatchNorm, ReLU, 3x3 convolution on everything before it in its block."""

    growth: int
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, before: tuple[Float[Array, "batch height width _"], ...], *, train: bool, valid: Array | None = None
    ) -> Float[Array, "batch height width growth"]:
        """Returns the new features; `before` is the block's input and what its earlier layers returned.

        Those are joined here, and not where they are returned: a backward pass that recomputes the layer keeps each of
        them once, and no joined copy for every layer.
        """
        x, wide = jnp.concatenate(before, -1), 4 * self.growth
        x = nn.relu(layers.BatchNorm(dtype=self.dtype, name="norm1")(x, train=train, valid=valid))
        init = _kaiming_fan_in(x.shape[-1])
        x = layers.Pointwise(wide, dtype=self.dtype, kernel_init=init, name="conv1")(x)
        x = nn.relu(layers.BatchNorm(dtype=self.dtype, name="norm2")(x, train=train, valid=valid))
        return Conv3x3(self.growth, dtype=self.dtype, kernel_init=_kaiming_fan_in(9 * wide), name="conv2")(x)


class Transition(nn.Module):
    """BatchNorm, ReLU, 1x1 convolution to half the channels, average pooling 2x2."""

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool, valid: Array | None = None
    ) -> Float[Array, "batch rows columns features"]:
        channels = x.shape[-1]
        x = nn.relu(layers.BatchNorm(dtype=self.dtype, name="norm")(x, train=train, valid=valid))
        init = _kaiming_fan_in(channels)
        x = layers.Pointwise(channels // 2, dtype=self.dtype, kernel_init=init, name="conv")(x)
        return layers.avg_pool2x2(x)


class DenseNet(nn.Module):
    """torchvision's `features`, which end in a BatchNorm and no ReLU: [B, H, W, 3] -> [B, H/32, W/32, features].

    CSA refines the map of a sixteenth of the image, before the third block.
    """

    backbone: DenseNetBackbone
    attention: str = "none"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool, valid: Array | None = None
    ) -> tuple[Float[Array, "batch rows columns features"], dict[str, Array]]:
        """Returns the map, and by name the middle one: `trunk`, and with CSA `refined` and `attention`."""
        x = layers.StemConv(self.backbone.stem, dtype=self.dtype, name="conv0")(images)
        x = layers.BatchNorm(dtype=self.dtype, name="norm0")(x, train=train, valid=valid)
        x = layers.max_pool3x3(nn.relu(x))
        middle: dict[str, Array] = {}
        for block, depth in enumerate(self.backbone.blocks, 1):
            features = [x]
            for number in range(1, depth + 1):
                layer = DenseLayer(self.backbone.growth, self.dtype, name=f"denseblock{block}_denselayer{number}")
                features.append(run_block(layer, tuple(features), train=train, valid=valid, remat=self.remat))
            x = jnp.concatenate(features, -1)
            if block < len(self.backbone.blocks):
                transition = Transition(self.dtype, name=f"transition{block}")
                x = run_block(transition, x, train=train, valid=valid, remat=self.remat)
            if block == _MIDDLE:
                middle["trunk"] = x
                if self.attention != "none":
                    x, middle["attention"] = SpatialAttention(self.attention, self.dtype, name="attention")(x)
                    middle["refined"] = x
        return layers.BatchNorm(dtype=self.dtype, name="norm5")(x, train=train, valid=valid), middle


# Paths of a DenseNet's parameters -> torchvision's names; older files call `norm1` of a dense layer `norm.1`.
TORCHVISION = ((r"\b(denseblock\d)_(denselayer\d+)\.", r"\1.\2."),)
_OLDER = ((r"(\.denselayer\d+\.(norm|conv))(\d)\.", r"\1.\3."),)


def imagenet_names(own: str, *rename: tuple[str, str]) -> tuple[PublishedNames, PublishedNames]:
    """Returns torchvision's names, for a network that starts from its DenseNet-121 of ImageNet: as saved, as published.

    Args:
        own: regular expression for whole paths of parameters that start with their initial values, beside CSA's.
        *rename: applied before torchvision's names, where the network's own differ.
    """
    current, older = (
        PublishedNames(
            family,
            ("features.conv0.weight", f"features.denseblock1.denselayer1.{norm}.weight", "features.norm5.weight"),
            rename=((rf"^({own}|(.*\.)?attention\..*)$", ""), *rename, *TORCHVISION, *extra),
            ignored=r"classifier\.(weight|bias)",
            fields=lambda shapes: backbone_field(shapes, "features.conv0.weight"),
            start=True,
        )
        for family, norm, extra in (
            ("torchvision_densenet121", "norm1", ()),
            ("torchvision_densenet121_older", "norm.1", _OLDER),
        )
    )
    return current, older


def backbone_field(shapes: Mapping[str, tuple[int, ...]], stem: str) -> dict[str, str]:
    """Returns `model.backbone` as the tensors of a file show it.

    Args:
        shapes: by name.
        stem: name of the first convolution's weight.
    """
    names = [name for name, network in DENSENETS.items() if network.stem == shapes[stem][0]]
    if not names:
        known = ", ".join(f"{name} ({network.stem})" for name, network in DENSENETS.items())
        raise InputError(f"{stem} has {shapes[stem][0]} channels; expected a DenseNet: {known}.")
    return {"model.backbone": names[0]}
