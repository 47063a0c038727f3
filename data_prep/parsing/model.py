"""SCHP (Li et al., TPAMI 2020): a ResNet-101 with the CE2P head (Ruan et al., AAAI 2019), for inference."""

from __future__ import annotations

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from data_prep.parsing.backbone import ResNet101
from data_prep.parsing.interpolation import adaptive_mean, aligned_resize, resize
from data_prep.parsing.layers import PRECISION, Conv1x1, Conv3x3, Norm, conv3x3, leaky_relu
from deskpro_jax.models.layers import Dtype, at_least_float32

BINS = (1, 2, 3, 6)  # pyramid pooling
PYRAMID = 512  # channels of each of its stages and of its output
EDGE = 256  # channels of the edge features of one level
DECODER = 256
DETAIL = 48  # channels that the decoder takes from the first stage
# Mean and deviation of blue, green, red in 0..1, the order of channels that the network was trained with.
MEAN = (0.406, 0.456, 0.485)
STD = (0.225, 0.224, 0.229)


class ConvNorm(nn.Module):
    """1x1 convolution of one map, or of several side by side, norm and leaky ReLU."""

    features: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, *maps: Float[Array, "batch _ _ _"]) -> Array:
        return Norm(leaky_relu, self.dtype, name="norm")(Conv1x1(self.features, dtype=self.dtype, name="conv")(*maps))


class PyramidPooling(nn.Module):
    """Averages over 1, 4, 9 and 36 parts of the map, convolved, enlarged, and a 3x3 convolution of all with the map."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch height width 512"]:
        _, height, width, channels = x.shape
        shape = (3, 3, len(BINS) * PYRAMID + channels, PYRAMID)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape).astype(self.dtype)
        *pooled_kernels, own_kernel = jnp.split(kernel, np.arange(1, len(BINS) + 1) * PYRAMID, axis=2)
        y = conv3x3(x, own_kernel, 1, 1, self.dtype)
        for i, bins in enumerate(BINS):
            rows, columns = (adaptive_mean(size, bins).astype(x.dtype) for size in (height, width))
            pooled = jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns, precision=PRECISION)
            pooled = ConvNorm(PYRAMID, self.dtype, name=f"stage{i}")(pooled)
            y = y + _conv_of_enlarged(pooled, pooled_kernels[i], height, width)
        return Norm(leaky_relu, self.dtype, name="norm")(y)


def _conv_of_enlarged(x: Array, kernel: Array, height: int, width: int) -> Array:
    """Returns the 3x3 convolution of `x` enlarged to height x width: the same numbers from far fewer products.

    Enlarging and convolving are both linear. The few pixels of `x` are multiplied with each of the kernel's nine
    matrices; what a product adds to a pixel of the result is then a weight of its row times one of its column.
    """
    rows, columns = (_shifted_resize(n, m).astype(x.dtype) for n, m in ((x.shape[1], height), (x.shape[2], width)))
    products = jnp.einsum("bijc,uvco->biujvo", x, kernel, precision=PRECISION)
    products = jnp.einsum("uhi,biujvo->bhjvo", rows, products, precision=PRECISION)
    return jnp.einsum("vwj,bhjvo->bhwo", columns, products, precision=PRECISION)


def _shifted_resize(source: int, target: int) -> np.ndarray:
    """Returns [3, target, source]: the resizing matrix as the taps -1, 0, 1 of a convolution see it, zeros outside."""
    padded = np.pad(aligned_resize(source, target), ((1, 1), (0, 0)))
    return np.stack([padded[tap : tap + target] for tap in range(3)])


class EdgeHead(nn.Module):
    """Edges of parts from the first three stages; one convolution to logits is shared by the three."""

    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, *levels: Float[Array, "batch _ _ _"]) -> tuple[Array, list[Array]]:
        """Returns edge logits [batch, height, width, 2] at the first level's size, and each level's features."""
        height, width = levels[0].shape[1:3]
        to_logits = Conv3x3(2, use_bias=True, dtype=self.dtype, name="conv4")
        features = [ConvNorm(EDGE, self.dtype, name=f"conv{i}")(level) for i, level in enumerate(levels, 1)]
        each = [resize(to_logits(feature), height, width) for feature in features]
        logits = Conv1x1(2, use_bias=True, dtype=self.dtype, name="conv5")(jnp.concatenate(each, -1))
        return logits, features


class PartDecoder(nn.Module):
    """Joins the pyramid's features, enlarged, with details of the first stage."""

    classes: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, context: Float[Array, "batch _ _ channels"], detail: Float[Array, "batch height width _"]
    ) -> tuple[Array, Array]:
        """Returns logits [batch, height, width, classes] and the features [batch, height, width, 256] below them."""
        context = ConvNorm(DECODER, self.dtype, name="conv1")(context)
        detail = ConvNorm(DETAIL, self.dtype, name="conv2")(detail)
        x = ConvNorm(DECODER, self.dtype, name="conv3_0")(context, detail)
        x = ConvNorm(DECODER, self.dtype, name="conv3_1")(x)
        return Conv1x1(self.classes, use_bias=True, dtype=self.dtype, name="conv4")(x), x


class SCHP(nn.Module):
    """The whole parser.

    Attributes:
        classes: labels of the scheme, background included.
        dtype: of the computation; norms and sums inside them are at least float32.
    """

    classes: int
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch height width 3"]
    ) -> tuple[Float[Array, "batch rows columns classes"], dict[str, Array]]:
        """Parses normalised images.

        Args:
            x: BGR, normalised with `MEAN` and `STD`.

        Returns:
            Logits at a quarter of the height and width, rounded up, and by name what lies before them: "maxpool",
            "layer1" to "layer4", "psp", and the logits "parsing" [..., classes] and "edge" [..., 2] of the branches.
        """
        maps = ResNet101(self.dtype, name="backbone")(x.astype(self.dtype))
        maps["psp"] = PyramidPooling(self.dtype, name="pyramid")(maps["layer4"])
        maps["parsing"], features = PartDecoder(self.classes, self.dtype, name="decoder")(maps["psp"], maps["layer1"])
        levels = (maps["layer1"], maps["layer2"], maps["layer3"])
        maps["edge"], edges = EdgeHead(self.dtype, name="edge")(*levels)
        fused = ConvNorm(DECODER, self.dtype, name="fusion")(features, *edges)
        logits = Conv1x1(self.classes, use_bias=True, dtype=self.dtype, name="classifier")(fused)
        return logits.astype(at_least_float32(self.dtype)), maps


def normalise(crops: UInt8[Array, "batch height width 3"]) -> Float[Array, "batch height width 3"]:
    """Returns RGB images as the network takes them: BGR, in float32, normalised."""
    return (crops[..., ::-1] / jnp.float32(255) - jnp.asarray(MEAN, jnp.float32)) / jnp.asarray(STD, jnp.float32)
