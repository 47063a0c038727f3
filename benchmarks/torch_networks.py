"""The networks of `deskpro_jax/methods` in plain PyTorch: structure only, for the comparison of speed.

Written for the comparison alone: it is not part of the package, and PyTorch is not among its dependencies. Each class
returns features for the metric loss, embeddings and logits, [parts, batch, ...], as `torch_lightmbn.LightMBN` does.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.torch_lightmbn import ConvUnit, LightMBN, Neck, OSBlock

Outputs = tuple[Tensor, Tensor, Tensor]
_STAGES = ((64, 3), (128, 4), (256, 6), (512, 3))  # width and blocks of ResNet-50's four stages


class Bottleneck(nn.Module):
    """ResNet's block: 1x1, 3x3 with the stride, 1x1, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int = 1):
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(self.bn3(self.conv3(y)) + shortcut, inplace=True)


def _stem() -> list[nn.Module]:
    return [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(True), nn.MaxPool2d(3, 2, 1)]


def _stage(number: int, stride: int) -> nn.Sequential:
    width, count = _STAGES[number]
    inputs = 64 if number == 0 else 4 * _STAGES[number - 1][0]
    return nn.Sequential(Bottleneck(inputs, width, stride), *(Bottleneck(4 * width, width) for _ in range(count - 1)))


def _resnet(last_stride: int = 1) -> nn.Sequential:
    return nn.Sequential(*_stem(), _stage(0, 1), _stage(1, 2), _stage(2, 2), _stage(3, last_stride))


class BagOfTricks(nn.Module):
    """ResNet-50, average pooling, BNNeck."""

    def __init__(self, classes: int):
        super().__init__()
        self.base, self.neck = _resnet(), Neck(2048, 2048, classes, reduce=False)

    def forward(self, images: Tensor) -> Outputs:
        features, embedding, logits = self.neck(functional.adaptive_avg_pool2d(self.base(images), 1))
        return features[None], embedding[None], logits[None]


class PCB(nn.Module):
    """ResNet-50, six rows of parts, a shared reduction, a classifier a part."""

    def __init__(self, classes: int, parts: int = 6):
        super().__init__()
        self.base, self.parts = _resnet(), parts
        self.conv5 = nn.Sequential(nn.Conv2d(2048, 256, 1, bias=False), nn.BatchNorm2d(256), nn.ReLU(True))
        self.classifier = nn.ModuleList(nn.Linear(256, classes) for _ in range(parts))

    def forward(self, images: Tensor) -> Outputs:
        pooled = functional.adaptive_avg_pool2d(self.base(images), (self.parts, 1))
        embeddings = pooled[..., 0].permute(2, 0, 1)
        reduced = self.conv5(functional.dropout(pooled, 0.5, self.training))[..., 0]
        logits = torch.stack([layer(reduced[..., i]) for i, layer in enumerate(self.classifier)])
        return embeddings[:0], embeddings, logits


def _tail(last_stride: int) -> nn.Sequential:
    """Returns the rest of stage 3 and stage 4."""
    return nn.Sequential(*list(_stage(2, 2))[1:], *_stage(3, last_stride))


class MGN(nn.Module):
    """ResNet-50 with three tails, eight reduced features."""

    def __init__(self, classes: int, features: int = 512, pool: str = "avg"):
        super().__init__()
        self.backone = nn.Sequential(*_stem(), _stage(0, 1), _stage(1, 2), _stage(2, 2)[0])
        self.branches = nn.ModuleList((_tail(2), _tail(1), _tail(1)))
        self.reductions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(2048, features, 1, bias=False), nn.BatchNorm2d(features), nn.ReLU())
            for _ in range(8)
        )
        self.classifiers = nn.ModuleList(nn.Linear(features, classes) for _ in range(8))
        self.pool = functional.adaptive_avg_pool2d if pool == "avg" else functional.adaptive_max_pool2d

    def forward(self, images: Tensor) -> Outputs:
        trunk = self.backone(images)
        maps = [branch(trunk) for branch in self.branches]
        pooled = [self.pool(one, 1) for one in maps]
        for one, count in ((maps[1], 2), (maps[2], 3)):
            pooled += list(self.pool(one, (count, 1)).split(1, dim=2))
        parts = torch.stack([layer(one).flatten(1) for layer, one in zip(self.reductions, pooled, strict=True)])
        logits = torch.stack([layer(part) for layer, part in zip(self.classifiers, parts, strict=True)])
        return parts[:3], parts, logits


class _LightMBN(LightMBN):
    """LightMBN, with the features of the metric loss only."""

    def forward(self, images: Tensor) -> Outputs:
        features, embeddings, logits = super().forward(images)
        return features[:3], embeddings, logits


class LightMBNOnResNet(nn.Module):
    """LightMBN's seven parts on ResNet-50."""

    def __init__(self, classes: int, features: int = 512, ratio: float = 0.33):
        super().__init__()
        self.backone = nn.Sequential(*_stem(), _stage(0, 1), _stage(1, 2), _stage(2, 2)[0])
        self.whole, self.part, self.channel = _tail(2), _tail(1), _tail(1)
        self.bottleneck, self.ratio = Bottleneck(2048, 512), ratio
        self.shared = nn.Sequential(nn.Conv2d(1024, features, 1, bias=False), nn.BatchNorm2d(features), nn.ReLU(True))
        self.necks = nn.ModuleList(Neck(2048, features, classes, reduce=True) for _ in range(5))
        self.channel_necks = nn.ModuleList(Neck(features, features, classes, reduce=False) for _ in range(2))

    def forward(self, images: Tensor) -> Outputs:
        trunk = self.backone(images)
        whole, part, channel = self.bottleneck(self.whole(trunk)), self.part(trunk), self.channel(trunk)
        dropped = whole
        if self.training:
            energy = whole.detach().square().sum(1).amax(2)
            rows = energy.topk(round(self.ratio * whole.shape[2]), dim=1).indices
            dropped = whole * torch.ones_like(energy).scatter_(1, rows, 0.0)[:, None, :, None]
        halves = functional.adaptive_avg_pool2d(part, (2, 1))
        most = functional.adaptive_max_pool2d
        pooled = [most(whole, 1), most(dropped, 1), most(part, 1), halves[:, :, :1], halves[:, :, 1:]]
        parts = [neck(one) for neck, one in zip(self.necks, pooled, strict=True)]
        for neck, half in zip(self.channel_necks, most(channel, 1).chunk(2, dim=1), strict=True):
            parts.append(neck(self.shared(half)))
        features, embeddings, logits = (torch.stack(one) for one in zip(*parts, strict=True))
        return features[:3], embeddings, logits


class _InstanceBlock(OSBlock):
    """OSNet-AIN's block: instance normalisation inside the residual in place of the last BatchNorm."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.conv3 = nn.Conv2d(outputs // 4, outputs, 1, bias=False)
        self.IN = nn.InstanceNorm2d(outputs, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv1(x)
        streams = (self.conv2a, self.conv2b, self.conv2c, self.conv2d)
        mixed = self.conv3(sum(self.gate(stream(reduced)) for stream in streams))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(self.IN(mixed) + shortcut)


class _NormalisedBlock(OSBlock):
    """OSNet-IBN's block: instance normalisation after the addition."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs)
        self.IN = nn.InstanceNorm2d(outputs, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.conv1(x)
        streams = (self.conv2a, self.conv2b, self.conv2c, self.conv2d)
        mixed = self.conv3(sum(self.gate(stream(reduced)) for stream in streams))
        shortcut = x if self.downsample is None else self.downsample(x)
        return functional.relu(self.IN(mixed + shortcut))


class OSNet(nn.Module):
    """OSNet x1_0 by itself, plain ("osnet"), with instance normalisation early ("ibn") or in its blocks ("ain")."""

    def __init__(self, classes: int, kind: str = "osnet"):
        super().__init__()
        normalised = {"osnet": OSBlock, "ibn": _NormalisedBlock, "ain": _InstanceBlock}[kind]
        # Which of the six blocks have an instance normalisation.
        which = {"osnet": (0,) * 6, "ibn": (1, 1, 0, 0, 0, 0), "ain": (1, 1, 0, 1, 1, 0)}[kind]
        kinds = [normalised if one else OSBlock for one in which]
        stem = ConvUnit(3, 64, 7, 2)
        if kind != "osnet":
            stem.bn = nn.InstanceNorm2d(64, affine=True)
        self.layers = nn.Sequential(
            stem,
            nn.MaxPool2d(3, 2, 1),
            *(kinds[0](64, 256), kinds[1](256, 256), ConvUnit(256, 256), nn.AvgPool2d(2)),
            *(kinds[2](256, 384), kinds[3](384, 384), ConvUnit(384, 384), nn.AvgPool2d(2)),
            *(kinds[4](384, 512), kinds[5](512, 512), ConvUnit(512, 512)),
        )
        self.fc = nn.Sequential(nn.Linear(512, 512), nn.BatchNorm1d(512), nn.ReLU())
        self.classifier = nn.Linear(512, classes)

    def forward(self, images: Tensor) -> Outputs:
        features = self.fc(functional.adaptive_avg_pool2d(self.layers(images), 1).flatten(1))
        return features[None][:0], features[None], self.classifier(features)[None]


class _Unit(nn.Sequential):
    """HACNN's convolution with bias, BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1):
        convolution = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2)
        super().__init__(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


class _InceptionA(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        width = outputs // 4
        self.streams = nn.ModuleList(nn.Sequential(_Unit(inputs, width), _Unit(width, width, 3)) for _ in range(3))
        self.streams.append(nn.Sequential(nn.AvgPool2d(3, 1, 1), _Unit(inputs, width)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([stream(x) for stream in self.streams], 1)


class _InceptionB(nn.Module):
    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        width = outputs // 4
        self.streams = nn.ModuleList(
            (
                nn.Sequential(_Unit(inputs, width), _Unit(width, width, 3, 2)),
                nn.Sequential(_Unit(inputs, width), _Unit(width, width, 3), _Unit(width, width, 3, 2)),
                nn.Sequential(nn.MaxPool2d(3, 2, 1), _Unit(inputs, 2 * width)),
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([stream(x) for stream in self.streams], 1)


class _Harmonious(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.spatial = nn.ModuleList((_Unit(1, 1, 3, 2), _Unit(1, 1)))
        self.channel = nn.Sequential(_Unit(channels, channels // 16), _Unit(channels // 16, channels))
        self.joint, self.regions = _Unit(channels, channels), nn.Linear(channels, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        spatial = self.spatial[0](x.mean(1, keepdim=True))
        spatial = functional.interpolate(spatial, size=x.shape[2:], mode="bilinear", align_corners=True)
        pooled = functional.adaptive_avg_pool2d(x, 1)
        weights = torch.sigmoid(self.joint(self.spatial[1](spatial) * self.channel(pooled)))
        return weights, torch.tanh(self.regions(pooled.flatten(1))).view(-1, 4, 2)


class HACNN(nn.Module):
    """Harmonious attention: three blocks on the whole photo, and on four regions that they choose."""

    SIZES = ((24, 28), (12, 14), (6, 7))

    def __init__(self, classes: int):
        super().__init__()
        widths = (32, 128, 256, 384)
        pairs = list(itertools.pairwise(widths))
        self.stem = _Unit(3, 32, 3, 2)
        self.blocks = nn.ModuleList(nn.Sequential(_InceptionA(a, b), _InceptionB(b, b)) for a, b in pairs)
        self.attention = nn.ModuleList(_Harmonious(b) for _, b in pairs)
        self.local = nn.ModuleList(_InceptionB(a, b) for a, b in pairs)
        self.whole = nn.Sequential(nn.Linear(384, 512), nn.BatchNorm1d(512), nn.ReLU())
        self.parts = nn.Sequential(nn.Linear(4 * 384, 512), nn.BatchNorm1d(512), nn.ReLU())
        self.classifiers = nn.ModuleList(nn.Linear(512, classes) for _ in range(2))

    def forward(self, images: Tensor) -> Outputs:
        x = self.stem(images)
        regions: list[Tensor] = []
        for number, block in enumerate(self.blocks):
            y = block(x)
            weights, shifts = self.attention[number](y)
            regional = []
            for region in range(4):
                matrix = x.new_zeros(len(x), 2, 3)
                matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, :, 2] = 1, 0.25, shifts[:, region]
                part = functional.grid_sample(
                    x, functional.affine_grid(matrix, list(x.shape), align_corners=False), align_corners=False
                )
                part = functional.interpolate(part, size=self.SIZES[number], mode="bilinear", align_corners=True)
                regional.append(self.local[number](part if number == 0 else part + regions[region]))
            regions, x = regional, y * weights
        whole = self.whole(functional.adaptive_avg_pool2d(x, 1).flatten(1))
        pooled = torch.cat([functional.adaptive_avg_pool2d(one, 1) for one in regions], 1)
        both = torch.stack([whole, self.parts(pooled.flatten(1))])
        return both[:0], both, torch.stack([layer(one) for layer, one in zip(self.classifiers, both, strict=True)])


class _DenseLayer(nn.Module):
    def __init__(self, inputs: int, growth: int = 32):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(inputs), nn.BatchNorm2d(4 * growth)
        self.conv1 = nn.Conv2d(inputs, 4 * growth, 1, bias=False)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(functional.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(functional.relu(self.norm2(y)))], 1)


def _densenet() -> nn.Sequential:
    layers: list[nn.Module] = _stem()
    width = 64
    for count in (6, 12, 24, 16):
        layers += [_DenseLayer(width + 32 * i) for i in range(count)]
        width += 32 * count
        layers.append(nn.BatchNorm2d(width))
        if count != 16:
            layers += [nn.ReLU(), nn.Conv2d(width, width // 2, 1, bias=False), nn.AvgPool2d(2)]
            width //= 2
    return nn.Sequential(*layers)


def _squash(vectors: Tensor) -> Tensor:
    norm = vectors.norm(dim=-1, keepdim=True)
    return norm / (1 + norm**2) * vectors


class ReIDCaps(nn.Module):
    """DenseNet-121 with a classifier, one on squeezed and excited features, and capsules."""

    def __init__(self, classes: int, rounds: int = 4):
        super().__init__()
        self.base, self.rounds = _densenet(), rounds
        self.first, self.second = nn.Linear(1024, classes), nn.Linear(1024, classes)
        self.squeeze, self.excite = nn.Linear(1024, 64, bias=False), nn.Linear(64, 1024, bias=False)
        self.primary = nn.Conv2d(1024, 256, 2, 2)
        self.routes = nn.Parameter(torch.randn(classes, 288, 8, 24))

    def forward(self, images: Tensor) -> Outputs:
        maps = self.base(images)
        pooled = functional.adaptive_avg_pool2d(maps, 1).flatten(1)
        if not self.training:
            return pooled[None][:0], pooled[None], pooled[None]
        weights = torch.sigmoid(self.excite(functional.relu(self.squeeze(pooled))))
        excited = maps * weights[:, :, None, None]
        second = self.second(functional.adaptive_avg_pool2d(excited, 1).flatten(1))
        first = self.first(functional.dropout(pooled, 0.25, self.training))
        primary = self.primary(excited).unflatten(1, (8, 32)).flatten(2).transpose(1, 2)
        votes = torch.einsum("bid,cide->cbie", _squash(primary), self.routes)
        logits = votes.new_zeros(votes.shape[:3])
        for number in range(self.rounds):
            joined = _squash((logits.softmax(2)[..., None] * votes).sum(2))
            if number < self.rounds - 1:
                logits = logits + (votes * joined[:, :, None]).sum(3)
        return pooled[None][:0], pooled[None], torch.stack([first, second, joined.norm(dim=2).T])


class ReIDCapsPlus(nn.Module):
    """Six networks on the whole photo and its parts, cut and resized before."""

    def __init__(self, classes: int):
        super().__init__()
        self.networks = nn.ModuleList(ReIDCaps(classes) for _ in range(6))

    def forward(self, images: Tensor) -> Outputs:
        h = images.shape[2]
        third, two_thirds, half = math.ceil(h / 3), math.ceil(2 * h / 3), math.ceil(h / 2)
        rows = ((0, third), (third - 1, two_thirds), (two_thirds - 1, h), (0, half), (half - 1, h), (0, h))
        outputs = [
            network(functional.interpolate(images[:, :, a:b], size=images.shape[2:], mode="bicubic", antialias=True))
            for network, (a, b) in zip(self.networks, rows, strict=True)
        ]
        features, embeddings, logits = (torch.cat(one) for one in zip(*outputs, strict=True))
        return features, embeddings, logits


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "bot": BagOfTricks,
    "pcb": PCB,
    "mgn": MGN,
    "hacnn": HACNN,
    "osnet": OSNet,
    "osnet_ibn": lambda classes: OSNet(classes, "ibn"),
    "osnet_ain": lambda classes: OSNet(classes, "ain"),
    "lmbn": _LightMBN,
    "lmbn_r": LightMBNOnResNet,
    "reidcaps": ReIDCaps,
    "reidcaps_plus": ReIDCapsPlus,
}
