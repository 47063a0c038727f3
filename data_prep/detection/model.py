"""RetinaFace (Deng et al., CVPR 2020) on a MobileNetV1 of width 0.25 or a ResNet-50, for inference.

Images of several sizes share one canvas, each in its top left corner. Whatever lies beyond an image is set to zero
after every layer, which is the zero padding that the layer would have seen at the image's own border: the canvas
changes nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from deskpro_jax.models.initialisers import constant, kaiming_fan_out
from deskpro_jax.models.layers import BatchNorm, Dtype, max_pool3x3

# Channels of the pyramid and its context modules; it also decides the slope of their activations.
PYRAMID_CHANNELS = {"mobilenet0.25": 64, "resnet50": 256}
VARIANTS = tuple(PYRAMID_CHANNELS)
STRIDES = (8, 16, 32)  # pixels a cell of each level, fine to coarse
ANCHORS = 2  # per cell
HEADS = {"ClassHead": 2, "BboxHead": 4, "LandmarkHead": 10}  # numbers an anchor
# MobileNetV1 of width 0.25: (channels, stride) of each block; the three stages' ends go to the pyramid.
MOBILENET_STAGES = (
    ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)),
    ((128, 2), (128, 1), (128, 1), (128, 1), (128, 1), (128, 1)),
    ((256, 2), (256, 1)),
)
MOBILENET_STEM = 8
MOBILENET_SLOPE = 0.1
RESNET_BLOCKS = (3, 4, 6, 3)
RESNET_STEM = 64
RESNET_EXPANSION = 4

Inside = dict[int, Bool[Array, "batch rows columns 1"] | None]  # by stride: which cells belong to the image


def inside_image(sizes: Int[Array, "batch 2"] | None, height: int, width: int) -> Inside:
    """Tells for every stride of the network which cells of a canvas belong to the image in its top left corner.

    Args:
        sizes: height and width of each image in pixels; None where the images fill the canvas.
        height, width: of the canvas in pixels.

    Returns:
        For stride s a mask [batch, ceil(height / s), ceil(width / s), 1]; None where all cells do.
    """
    masks: Inside = {}
    for stride in (1, 2, 4, *STRIDES):
        if sizes is None:
            masks[stride] = None
            continue
        cells = -(-sizes // stride)
        rows, columns = jnp.arange(-(-height // stride)), jnp.arange(-(-width // stride))
        mask = (rows[:, None] < cells[:, 0, None, None]) & (columns < cells[:, 1, None, None])
        masks[stride] = mask[..., None]
    return masks


def _clear(x: Array, inside: Bool[Array, "batch rows columns 1"] | None) -> Array:
    """Sets what lies beyond the image to zero."""
    return x if inside is None else jnp.where(inside, x, 0)


def _depthwise3x3(x: Array, kernel: Array, stride: int) -> Array:
    """Depthwise 3x3 convolution, zero padding 1: shifted multiply-adds, since XLA's grouped one is slow on CPU."""
    height, width = x.shape[-3], x.shape[-2]
    padded = jax.lax.optimization_barrier(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))))
    taps = [
        padded[:, i : i + height : stride, j : j + width : stride] * kernel[i, j] for i in range(3) for j in range(3)
    ]
    return functools.reduce(jnp.add, taps)


class DetectorUnit(nn.Module):
    """Convolution without bias, BatchNorm, leaky ReLU; zero outside the image.

    `slope` is that of the activation's negative part, 1 for none. Zero padding is half the kernel, as everywhere in
    this network. A depthwise convolution is 3x3 and keeps the channels.
    """

    features: int
    size: int = 1
    stride: int = 1
    slope: float = 0.0
    depthwise: bool = False
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width channels"], inside: Bool[Array, "batch rows columns 1"] | None
    ) -> Float[Array, "batch rows columns features"]:
        init = kaiming_fan_out(self.features * self.size**2)
        x = x.astype(self.dtype)
        if self.depthwise:
            kernel = self.param("kernel", init, (3, 3, self.features)).astype(self.dtype)
            y = _depthwise3x3(x, kernel, self.stride)
        elif self.size == 1:
            kernel = self.param("kernel", init, (x.shape[-1], self.features)).astype(self.dtype)
            y = jnp.matmul(x[:, :: self.stride, :: self.stride], kernel, precision=_precision(self.dtype))
        else:
            kernel = self.param("kernel", init, (self.size, self.size, x.shape[-1], self.features)).astype(self.dtype)
            y = jax.lax.conv_general_dilated(
                x,
                kernel,
                window_strides=(self.stride, self.stride),
                padding=((self.size // 2, self.size // 2),) * 2,
                dimension_numbers=("NHWC", "HWIO", "NHWC"),
                precision=_precision(self.dtype),
            )
        y = BatchNorm(dtype=self.dtype, name="bn")(y, train=False)
        if self.slope < 1:
            y = nn.leaky_relu(y, self.slope) if self.slope else nn.relu(y)
        return _clear(y, inside)


def _precision(dtype: Dtype) -> jax.lax.Precision | None:
    """Returns the precision that keeps float32 products in float32 on accelerators; other types take the default."""
    return jax.lax.Precision.HIGHEST if jnp.dtype(dtype) == jnp.float32 else None


class MobileNet(nn.Module):
    """MobileNetV1 of width 0.25: depthwise and pointwise convolutions in turn; its maps at strides 8, 16 and 32."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width 3"], inside: Inside) -> list[Array]:
        unit = functools.partial(DetectorUnit, slope=MOBILENET_SLOPE, dtype=self.dtype)
        at = 2
        x = unit(MOBILENET_STEM, 3, 2, name="stem")(x, inside[at])
        maps = []
        for i, stage in enumerate(MOBILENET_STAGES, 1):
            for j, (features, stride) in enumerate(stage):
                at *= stride
                name = f"stage{i}_{j}"
                x = unit(x.shape[-1], 3, stride, depthwise=True, name=f"{name}_depthwise")(x, inside[at])
                x = unit(features, name=f"{name}_pointwise")(x, inside[at])
            maps.append(x)
        return maps


class Bottleneck(nn.Module):
    """Residual block of ResNet-50, stride on its 3x3 convolution."""

    features: int
    stride: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, before: Array | None, after: Array | None) -> Array:
        """`before` and `after` tell which cells belong to the image at the block's input and output."""
        out = RESNET_EXPANSION * self.features
        y = DetectorUnit(self.features, dtype=self.dtype, name="conv1")(x, before)
        y = DetectorUnit(self.features, 3, self.stride, dtype=self.dtype, name="conv2")(y, after)
        y = DetectorUnit(out, slope=1.0, dtype=self.dtype, name="conv3")(y, after)
        if self.stride != 1 or x.shape[-1] != out:
            x = DetectorUnit(out, 1, self.stride, slope=1.0, dtype=self.dtype, name="downsample")(x, after)
        return nn.relu(y + x.astype(y.dtype))


class ResNet(nn.Module):
    """ResNet-50; its maps at strides 8, 16 and 32."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width 3"], inside: Inside) -> list[Array]:
        x = DetectorUnit(RESNET_STEM, 7, 2, dtype=self.dtype, name="stem")(x, inside[2])
        # Beyond the image lie zeros where PyTorch pads with -inf: the same after a ReLU.
        x = _clear(max_pool3x3(x), inside[4])
        at, maps = 4, []
        for i, blocks in enumerate(RESNET_BLOCKS, 1):
            for j in range(blocks):
                before, at = at, at * (2 if i > 1 and j == 0 else 1)
                block = Bottleneck(64 << (i - 1), at // before, self.dtype, name=f"layer{i}_{j}")
                x = block(x, inside[before], inside[at])
            maps.append(x)
        return maps[1:]


def _double(x: Array, height: int, width: int) -> Array:
    """Resizes to the next finer level, nearest: PyTorch's choice is cell floor(i / 2) for odd sizes too."""
    batch, rows, columns, channels = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (batch, rows, 2, columns, 2, channels))
    return x.reshape(batch, 2 * rows, 2 * columns, channels)[:, :height, :width]


class Pyramid(nn.Module):
    """Feature pyramid: every level to the same channels, coarser levels added to finer ones."""

    features: int
    slope: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[Array], inside: Inside) -> list[Array]:
        unit = functools.partial(DetectorUnit, self.features, slope=self.slope, dtype=self.dtype)
        levels = [
            unit(name=f"output{i}")(x, inside[stride])
            for i, (x, stride) in enumerate(zip(maps, STRIDES, strict=True), 1)
        ]
        for i in (2, 1):
            finer = levels[i - 1]
            mask = inside[STRIDES[i - 1]]
            # A coarse cell at the border can reach beyond the image.
            summed = _clear(finer + _double(levels[i], finer.shape[1], finer.shape[2]), mask)
            levels[i - 1] = unit(3, name=f"merge{i}")(summed, mask)
        return levels


class Context(nn.Module):
    """SSH's context module: receptive fields of 3, 5 and 7 cells side by side, made of 3x3 convolutions."""

    features: int
    slope: float
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, inside: Array | None) -> Array:
        half, quarter = self.features // 2, self.features // 4
        unit = functools.partial(DetectorUnit, size=3, dtype=self.dtype)
        three = unit(half, slope=1.0, name="conv3x3")(x, inside)
        shared = unit(quarter, slope=self.slope, name="conv5x5_1")(x, inside)
        five = unit(quarter, slope=1.0, name="conv5x5_2")(shared, inside)
        seven = unit(quarter, slope=self.slope, name="conv7x7_2")(shared, inside)
        seven = unit(quarter, slope=1.0, name="conv7x7_3")(seven, inside)
        return nn.relu(jnp.concatenate([three, five, seven], -1))


class RetinaFace(nn.Module):
    """The detector: what its heads say of every anchor, levels fine to coarse, cells row by row, two anchors a cell.

    Reference: biubug6/Pytorch_Retinaface.
    """

    variant: str = "mobilenet0.25"
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width 3"], sizes: Int[Array, "batch 2"] | None = None
    ) -> tuple[Float[Array, "batch anchors 4"], Float[Array, "batch anchors 2"], Float[Array, "batch anchors 10"]]:
        """Runs the network.

        Args:
            x: BGR images less their mean colour, each in the top left corner of its canvas.
            sizes: height and width in pixels of each image; None where they fill the canvas.

        Returns:
            Box offsets, logits (background, face) and landmark offsets of every anchor; the anchors of cells beyond
            an image say nothing.
        """
        channels = PYRAMID_CHANNELS[self.variant]
        slope = 0.1 if channels <= 64 else 0.0
        inside = inside_image(sizes, x.shape[1], x.shape[2])
        x = _clear(x, inside[1])
        body = (MobileNet if self.variant == "mobilenet0.25" else ResNet)(self.dtype, name="body")
        levels = Pyramid(channels, slope, self.dtype, name="fpn")(body(x, inside), inside)
        outputs: dict[str, list[Array]] = {head: [] for head in HEADS}
        for i, (level, stride) in enumerate(zip(levels, STRIDES, strict=True)):
            context = Context(channels, slope, self.dtype, name=f"ssh{i + 1}")(level, inside[stride])
            for head, numbers in HEADS.items():
                y = nn.Dense(
                    ANCHORS * numbers,
                    dtype=self.dtype,
                    precision=_precision(self.dtype),
                    kernel_init=kaiming_fan_out(ANCHORS * numbers),
                    bias_init=constant(0.0),
                    name=f"{head}_{i}",
                )(context)
                outputs[head].append(y.reshape(y.shape[0], -1, numbers))
        classes, boxes, landmarks = (jnp.concatenate(outputs[head], 1) for head in HEADS)
        return boxes, classes, landmarks
