"""ResNet (He et al., CVPR 2016) with torchvision's layers and names: bottlenecks, IBN-a, trunk and tail."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from deskpro_jax.config import user_modules
from deskpro_jax.errors import InputError
from deskpro_jax.models import layers
from deskpro_jax.models.attention import SpatialAttention
from deskpro_jax.models.contract import PRETRAINED, PublishedNames
from deskpro_jax.models.initialisers import Initialiser, kaiming_fan_out
from deskpro_jax.models.remat import run_block

EXPANSION = 4  # channels out of a bottleneck for each of its middle


@dataclass(frozen=True)
class ResNetBackbone:
    """A ResNet of bottlenecks.

    Attributes:
        blocks: bottlenecks of layer1 to layer4.
        width: channels after the stem, and in the middle of layer1's bottlenecks; each layer doubles it.
        instance_norm: IBN-a: the first half of the channels after conv1 of each bottleneck of layer1 to layer3 is
            normalised per image.
    """

    blocks: tuple[int, int, int, int]
    width: int = 64
    instance_norm: bool = False

    def features(self, layer: int) -> int:
        """Returns the number of channels out of `layer`, 1 to 4."""
        return int(self.width * 2 ** (layer - 1) * EXPANSION)


RESNETS = {
    "resnet50": ResNetBackbone((3, 4, 6, 3)),
    "resnet50_ibn_a": ResNetBackbone((3, 4, 6, 3), instance_norm=True),
    "resnet14_x0_25": ResNetBackbone((1, 1, 1, 1), width=16),  # for debug runs
}


def resnet(name: str) -> ResNetBackbone:
    """Returns the ResNet called `name`, or the one of a fork that it names as "module:name".

    Raises:
        InputError: there is no such ResNet.
    """
    return user_modules.find_in("model.backbone", name, RESNETS, ResNetBackbone)


class Conv3x3(nn.Module):
    """3x3 convolution with zero padding 1, without bias."""

    features: int
    stride: int = 1
    dtype: layers.Dtype = jnp.float32
    kernel_init: Initialiser | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Array:
        shape = (3, 3, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init or kaiming_fan_out(9 * self.features), shape)
        return jax.lax.conv_general_dilated(
            x.astype(self.dtype),
            kernel.astype(self.dtype),
            window_strides=(self.stride, self.stride),
            padding=((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )


class InstanceBatchNorm(nn.Module):
    """IBN-a (Pan et al., ECCV 2018): instance norm on the first half of the channels, batch norm on the second."""

    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"], *, train: bool, valid: Array | None) -> Array:
        half = x.shape[-1] // 2
        first = layers.InstanceNorm(dtype=self.dtype, name="IN")(x[..., :half])
        second = layers.BatchNorm(dtype=self.dtype, name="BN")(x[..., half:], train=train, valid=valid)
        return jnp.concatenate([first, second], -1)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolution beside a shortcut; the 3x3 has the stride, as in torchvision."""

    middle: int
    stride: int = 1
    instance_norm: bool = False
    dtype: layers.Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool, valid: Array | None = None
    ) -> Float[Array, "batch rows columns features"]:
        features = self.middle * EXPANSION
        norm = functools.partial(layers.BatchNorm, dtype=self.dtype)
        first = functools.partial(InstanceBatchNorm, self.dtype) if self.instance_norm else norm
        y = layers.Pointwise(self.middle, dtype=self.dtype, name="conv1")(x)
        y = nn.relu(first(name="bn1")(y, train=train, valid=valid))
        y = Conv3x3(self.middle, self.stride, self.dtype, name="conv2")(y)
        y = nn.relu(norm(name="bn2")(y, train=train, valid=valid))
        y = layers.Pointwise(features, dtype=self.dtype, name="conv3")(y)
        y = norm(name="bn3")(y, train=train, valid=valid)
        if self.stride > 1 or x.shape[-1] != features:
            x = x[:, :: self.stride, :: self.stride]
            x = layers.Pointwise(features, dtype=self.dtype, name="downsample_0")(x)
            x = norm(name="downsample_1")(x, train=train, valid=valid)
        return nn.relu(y + x.astype(y.dtype))


class ResNetTrunk(nn.Module):
    """Stem to layer3's first bottleneck, then CSA: [B, H, W, 3] -> [B, H/16, W/16, features(3)].

    MGN and LightMBN split into branches there, at the middle map. `stem_relu` False leaves the stem's ReLU out, as the
    authors of BoT do.
    """

    backbone: ResNetBackbone
    stem_relu: bool = True
    attention: str = "none"
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(
        self, images: Float[Array, "batch height width 3"], *, train: bool, valid: Array | None = None
    ) -> tuple[Float[Array, "batch rows columns features"], dict[str, Array]]:
        """Returns the middle map, refined by CSA, and by name `trunk` (before CSA), `refined` and `attention`."""
        x = layers.StemConv(self.backbone.width, dtype=self.dtype, name="conv1")(images)
        x = layers.BatchNorm(dtype=self.dtype, name="bn1")(x, train=train, valid=valid)
        x = layers.max_pool3x3(nn.relu(x) if self.stem_relu else x)
        for block in _bottlenecks(self.backbone, (1, 2, 3), trunk=True, dtype=self.dtype):
            x = run_block(block, x, train=train, valid=valid, remat=self.remat)
        middle = {"trunk": x}
        if self.attention != "none":
            x, middle["attention"] = SpatialAttention(self.attention, self.dtype, name="attention")(x)
            middle["refined"] = x
        return x, middle


class ResNetTail(nn.Module):
    """The rest of layer3, and layer4: [B, H, W, features(3)] -> [B, H/last_stride, W/last_stride, features(4)].

    `numbers` (3,) leaves layer4 to the network that goes on from here.
    """

    backbone: ResNetBackbone
    last_stride: int = 1
    dtype: layers.Dtype = jnp.float32
    remat: str = "none"
    numbers: tuple[int, ...] = (3, 4)

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], *, train: bool, valid: Array | None = None
    ) -> Float[Array, "batch rows columns features"]:
        blocks = _bottlenecks(self.backbone, self.numbers, trunk=False, dtype=self.dtype, last_stride=self.last_stride)
        for block in blocks:
            x = run_block(block, x, train=train, valid=valid, remat=self.remat)
        return x


def _bottlenecks(
    backbone: ResNetBackbone, numbers: tuple[int, ...], *, trunk: bool, dtype: layers.Dtype, last_stride: int = 2
) -> Iterator[Bottleneck]:
    """Yields the bottlenecks of some layers; of layer3 the first is the trunk's, the others are the tail's."""
    for layer in numbers:
        first, stop = (0, 1) if trunk and layer == 3 else (int(layer == 3), backbone.blocks[layer - 1])
        for index in range(first, stop):
            stride = {1: 1, 4: last_stride}.get(layer, 2) if index == 0 else 1
            norm = backbone.instance_norm and layer < 4
            yield Bottleneck(backbone.width * 2 ** (layer - 1), stride, norm, dtype, name=f"layer{layer}_{index}")


# Paths of parameters in a trunk and branches -> the names of LightMBN's repository.
LIGHTMBN = (
    *((rf"^trunk\.{layer}\.", f"backone.{index}.") for layer, index in (("conv1", 0), ("bn1", 1), ("layer3_0", 6))),
    *((rf"^trunk\.layer{layer}_", f"backone.{layer + 3}.") for layer in (1, 2)),
    *((rf"\.layer3_{block}\.", f".0.{block - 1}.") for block in range(1, 6)),
    (r"\.layer4_", ".1."),
    (r"\.downsample_", ".downsample."),
)
# Paths of parameters in a trunk and a tail -> torchvision's names.
TORCHVISION = ((r"^(trunk|tail)\.", ""), (r"\b(layer\d|downsample)_(\d+)\.", r"\1.\2."))


def imagenet_names(own: str, *rename: tuple[str, str]) -> PublishedNames:
    """Returns torchvision's names, for a network that starts from its ResNet-50 of ImageNet.

    Args:
        own: regular expression for whole paths of parameters that start with their initial values, beside CSA's.
        *rename: applied before torchvision's names, where the network's own differ.
    """
    return PublishedNames(
        "torchvision_resnet50",
        ("layer1.0.conv1.weight", "layer4.0.conv3.weight", "fc.weight"),
        rename=((rf"^({own}|(.*\.)?attention\..*)$", ""), *rename, *TORCHVISION),
        ignored=r"fc\.(weight|bias)",
        fields=lambda shapes: backbone_field(shapes, "conv1.weight"),
        start=True,
    )


def backbone_field(shapes: Mapping[str, tuple[int, ...]], stem: str) -> dict[str, str]:
    """Returns `model.backbone` as the tensors of a file show it.

    Args:
        shapes: by name.
        stem: name of the first convolution's weight.
    """
    kind = shapes[stem][0], any(".bn1.IN." in name for name in shapes)
    names = [name for name, network in RESNETS.items() if (network.width, network.instance_norm) == kind]
    if not names:
        known = ", ".join(f"{name} ({network.width})" for name, network in RESNETS.items())
        norm = "with" if kind[1] else "without"
        raise InputError(f"{stem} has {kind[0]} channels, {norm} instance norms; expected a ResNet: {known}.")
    return {"model.backbone": names[0]}


def label_of(*modules: str) -> Callable[[tuple[str, ...]], str]:
    """Returns a `Recipe.label`: parameters within these modules are what ImageNet's weights start; CSA's are not."""
    return lambda path: PRETRAINED if not {*modules}.isdisjoint(path) and "attention" not in path else ""
