"""Names the network that the tensors of a file look like, also those that this package has no use for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

import numpy as np

# Two names that only this network has together, under whatever prefix; the more particular network comes first.
_SIGNATURES = (
    ("a RetinaFace detector", "ClassHead.0.conv1x1.weight", "ssh1.conv3X3.0.weight"),
    ("an SCHP parser", "fushion.3.weight", "context_encoding.bottleneck.0.weight"),
    ("a GPEN restorer", "generator.to_rgb1.conv.weight", "ecd0.0.0.weight"),
    ("a LightMBN", "backone.0.conv.weight", "backone.3.conv1.conv.weight"),
    ("a DeSKPro network", "backbone.0.conv.weight", "backbone.3.conv1.conv.weight"),
    ("an OSNet-AIN", "conv1.conv.weight", "conv2.0.conv2.0.layers.0.conv1.weight"),
    ("an OSNet-IBN", "conv1.conv.weight", "conv2.0.IN.weight"),
    ("an OSNet", "conv1.conv.weight", "conv5.conv.weight"),
    ("a CLIP model", "visual.proj", "text_projection"),
    ("a TransReID", "sie_embed", "blocks.0.attn.qkv.weight"),
    ("a vision transformer", "cls_token", "blocks.0.attn.qkv.weight"),
    (
        "a vision transformer of Hugging Face",
        "embeddings.cls_token",
        "encoder.layer.0.attention.attention.query.weight",
    ),
    ("a Swin transformer", "patch_embed.proj.weight", "layers.0.blocks.0.attn.relative_position_bias_table"),
    ("an HRNet", "conv1.weight", "stage2.0.branches.0.0.conv1.weight"),
    ("an IResNet of ArcFace", "conv1.weight", "layer1.0.prelu.weight"),
    ("a ResNet-IBN", "conv1.weight", "layer1.0.bn1.IN.weight"),
    ("an SE-ResNet", "conv1.weight", "layer1.0.se.fc.0.weight"),
    ("a ResNet", "conv1.weight", "layer4.0.conv1.weight"),
    ("a DenseNet", "features.conv0.weight", "features.denseblock1.denselayer1.conv1.weight"),
    ("a MobileNetV2", "features.0.0.weight", "features.1.conv.0.0.weight"),
    ("a MobileNetV1 of RetinaFace", "stage1.0.0.weight", "stage3.1.3.weight"),
    ("a ConvNeXt", "downsample_layers.0.0.weight", "stages.0.0.dwconv.weight"),
    ("a VGG", "features.0.weight", "classifier.6.weight"),
    ("an Inception", "Conv2d_1a_3x3.conv.weight", "Mixed_5b.branch1x1.conv.weight"),
    ("a YOLO detector", "model.0.conv.weight", "model.1.conv.weight"),
)
# Blocks of a ResNet's third stage, which tell its depth; by whether they are bottlenecks.
_DEPTHS = {(2, False): "18", (6, False): "34", (6, True): "50", (23, True): "101", (36, True): "152"}
_OSNET_WIDTHS = {64: "x1.0", 48: "x0.75", 32: "x0.5", 16: "x0.25"}


def looks_like(tensors: Mapping[str, np.ndarray]) -> str | None:
    """Returns what network tensors look like, for instance "a ResNet-50" or "an OSNet-AIN x1.0"; None for no known one.

    Args:
        tensors: by name, as read from a file.
    """
    for network, first, other in _SIGNATURES:
        for start in _starts(tensors, first):
            if start + other in tensors:
                return network + _size(network, start, tensors)
    return None


def _starts(names: Iterable[str], ending: str) -> list[str]:
    """Returns what stands in front of an ending in the names that have it, whole words only."""
    starts = [name.removesuffix(ending) for name in names if name.endswith(ending)]
    return [start for start in starts if not start or start.endswith(".")]


def _size(network: str, start: str, tensors: Mapping[str, np.ndarray]) -> str:
    if "OSNet" in network:
        shape = np.shape(tensors[f"{start}conv1.conv.weight"])
        width = _OSNET_WIDTHS.get(shape[0] if shape else 0)
        return f" {width}" if width else ""
    if network in ("a ResNet", "a ResNet-IBN", "an SE-ResNet"):
        pattern = re.compile(re.escape(start) + r"layer3\.(\d+)\.")
        blocks = {match[1] for name in tensors if (match := pattern.match(name))}
        depth = _DEPTHS.get((len(blocks), f"{start}layer1.0.conv3.weight" in tensors))
        return f"-{depth}" if depth else ""
    return ""
