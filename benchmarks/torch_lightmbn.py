"""LightMBN on OSNet in plain PyTorch, as users of the two know them; parameter names are the published ones.

Written for the comparison alone: it is not part of the package, and PyTorch is not among its dependencies.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTHS = {"x1_0": (64, 256, 384, 512), "x0_25": (16, 64, 96, 128)}


class ConvUnit(nn.Module):
    """Convolution, BatchNorm, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1, linear: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.linear = linear

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        return x if self.linear else functional.relu(x, inplace=True)


class LightConv(nn.Module):
    """Pointwise, then depthwise 3x3 convolution, BatchNorm, ReLU."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv2(self.conv1(x))), inplace=True)


class Gate(nn.Module):
    """Multiplies channels by weights that come from their means."""

    def __init__(self, channels: int, reduction: int = 16):
        super().__init__()
        self.fc1 = nn.Conv2d(channels, channels // reduction, 1)
        self.fc2 = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.fc2(functional.relu(self.fc1(pooled))))


class OSBlock(nn.Module):
    """Omni-scale block: four streams of one to four light convolutions behind one gate."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        mid = outputs // 4
        self.conv1 = ConvUnit(inputs, mid)
        self.conv2a = LightConv(mid)
        self.conv2b = nn.Sequential(*(LightConv(mid) for _ in range(2)))
        self.conv2c = nn.Sequential(*(LightConv(mid) for _ in range(3)))
        self.conv2d = nn.Sequential(*(LightConv(mid) for _ in range(4)))
        self.gate = Gate(mid)
        self.conv3 = ConvUnit(mid, outputs, linear=True)
        self.downsample = ConvUnit(inputs, outputs, linear=True) if inputs != outputs else None

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv1(x)
        streams = (self.conv2a, self.conv2b, self.conv2c, self.conv2d)
        mixed = sum(self.gate(stream(reduced)) for stream in streams)
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(self.conv3(mixed) + shortcut)


class Neck(nn.Module):
    """BNNeck: optional 1x1 reduction, BatchNorm with a bias that stays zero, classifier without bias."""

    def __init__(self, inputs: int, features: int, classes: int, reduce: bool):
        super().__init__()
        self.reduction = nn.Conv2d(inputs, features, 1, bias=False) if reduce else None
        self.bn = nn.BatchNorm1d(features)
        self.bn.bias.requires_grad_(False)
        self.classifier = nn.Linear(features, classes, bias=False)

    def forward(self, pooled: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        features = (pooled if self.reduction is None else self.reduction(pooled)).flatten(1)
        embedding = self.bn(features)
        return features, embedding, self.classifier(embedding)


class TopDrop(nn.Module):
    """An OSBlock whose output loses, in training, the rows with the strongest activations."""

    def __init__(self, channels: int, ratio: float = 0.33):
        super().__init__()
        self.drop_batch_bottleneck = OSBlock(channels, channels)
        self.ratio = ratio

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.drop_batch_bottleneck(x)
        if not self.training:
            return x, x
        energy = x.detach().square().sum(1).amax(2)
        dropped = energy.topk(round(self.ratio * x.shape[2]), dim=1).indices
        keep = torch.ones_like(energy).scatter_(1, dropped, 0.0)
        return x, x * keep[:, None, :, None]


class LightMBN(nn.Module):
    """One stream: seven parts from three branches on a shared trunk."""

    def __init__(self, classes: int, backbone: str = "x1_0", feature_dim: int = 512):
        super().__init__()
        stem, second, third, fourth = WIDTHS[backbone]
        self.backone = nn.Sequential(
            ConvUnit(3, stem, 7, 2),
            nn.MaxPool2d(3, stride=2, padding=1),
            nn.Sequential(
                OSBlock(stem, second), OSBlock(second, second), nn.Sequential(ConvUnit(second, second), nn.AvgPool2d(2))
            ),
            OSBlock(second, third),
        )

        def branch() -> nn.Sequential:
            # The names begin at 1: block 0 of the stage is in the trunk.
            rest = {"1": OSBlock(third, third), "2": nn.Sequential(ConvUnit(third, third), nn.AvgPool2d(2))}
            return nn.Sequential(
                nn.Sequential(OrderedDict(rest)),
                nn.Sequential(OSBlock(third, fourth), OSBlock(fourth, fourth)),
                ConvUnit(fourth, fourth),
            )

        self.global_branch, self.partial_branch, self.channel_branch = branch(), branch(), branch()
        self.batch_drop_block = TopDrop(fourth)
        self.shared = nn.Sequential(
            nn.Conv2d(fourth // 2, feature_dim, 1, bias=False), nn.BatchNorm2d(feature_dim), nn.ReLU()
        )
        for i in range(5):
            self.add_module(f"reduction_{i}", Neck(fourth, feature_dim, classes, reduce=True))
        for i in range(2):
            self.add_module(f"reduction_ch_{i}", Neck(feature_dim, feature_dim, classes, reduce=False))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns features before the neck, embeddings after it and logits, each [7, batch, ...].

        Parts are in the order global, global_drop, part_max, part_top, part_bottom, channel_0, channel_1.
        """
        trunk = self.backone(images)
        whole, dropped = self.batch_drop_block(self.global_branch(trunk))
        part, channel = self.partial_branch(trunk), self.channel_branch(trunk)
        halves = functional.adaptive_avg_pool2d(part, (2, 1))
        upper, lower = functional.adaptive_avg_pool2d(channel, 1).chunk(2, dim=1)
        pooled = (
            (self.reduction_0, functional.adaptive_avg_pool2d(whole, 1)),
            (self.reduction_4, functional.adaptive_max_pool2d(dropped, 1)),
            (self.reduction_1, functional.adaptive_max_pool2d(part, 1)),
            (self.reduction_2, halves[:, :, :1]),
            (self.reduction_3, halves[:, :, 1:]),
            (self.reduction_ch_0, self.shared(upper)),
            (self.reduction_ch_1, self.shared(lower)),
        )
        parts = [neck(value) for neck, value in pooled]
        features, embeddings, logits = zip(*parts, strict=True)
        return torch.stack(features), torch.stack(embeddings), torch.stack(logits)


def training_loss(features: Tensor, logits: Tensor, labels: Tensor, margin: float = 0.7) -> Tensor:
    """Returns cross-entropy over the seven parts plus batch-hard triplet loss over the first three.

    Args:
        features: before the neck [7, batch, dimension].
        logits: [7, batch, classes].
        labels: [batch].
        margin: of the triplet loss.
    """
    entropy = functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits))) * len(logits)
    chosen = features[:3].float()
    norms = chosen.square().sum(2)
    products = chosen @ chosen.transpose(1, 2)
    distances = (norms[:, :, None] + norms[:, None, :] - 2 * products).clamp(min=1e-12).sqrt()
    same = labels[:, None] == labels[None, :]
    # Distances are not negative: zero never is the farthest, nor infinity the nearest.
    farthest = torch.where(same, distances, torch.zeros_like(distances)).amax(2)
    nearest = torch.where(same, torch.full_like(distances, torch.inf), distances).amin(2)
    return entropy + functional.relu(farthest - nearest + margin).mean(1).sum()
