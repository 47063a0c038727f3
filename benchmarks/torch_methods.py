"""The entrants on PyTorch of the benchmark of methods: their networks, embedded and trained."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.timing import rate_and_latency
from benchmarks.torch_forms import FORMS, normalised
from benchmarks.torch_networks import NETWORKS, Outputs


def loss_of(outputs: Outputs, labels: Tensor) -> Tensor:
    """Returns label-smoothed cross-entropy over the logits, and batch-hard triplet loss where there are features."""
    features, _, logits = outputs
    entropy = functional.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), label_smoothing=0.1)
    if not len(features):
        return entropy
    distances = torch.cdist(features, features)
    same = labels[:, None] == labels[None, :]
    farthest = torch.where(same, distances, torch.zeros_like(distances)).amax(2)
    nearest = torch.where(same, torch.full_like(distances, torch.inf), distances).amin(2)
    return entropy + functional.relu(farthest - nearest + 0.3).mean()


def _prepared(method: str, form: str, classes: int, threads: int) -> tuple[nn.Module, bool, bool, int]:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = NETWORKS[method](classes)
    compiled, last = FORMS[form]
    if last:
        model = model.to(memory_format=torch.channels_last)
    return model, compiled, last, sum(parameter.numel() for parameter in model.parameters())


def _images(batch: int, size: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (batch, *size, 3), np.uint8)


def embed(
    method: str, form: str, classes: int, size: Sequence[int], batch: int, threads: int, seconds: float
) -> Iterator[dict[str, float]]:
    """Embeds uint8 images into unit-length parts; an entrant."""
    model, compiled, last, parameters = _prepared(method, form, classes, threads)
    model.eval()
    run: Any = torch.compile(copy.deepcopy(model)) if compiled else model
    images = _images(batch, size)

    def call() -> np.ndarray:
        with torch.inference_mode():
            _, embeddings, _ = run(normalised(torch.from_numpy(images), last))
            return functional.normalize(embeddings, dim=2).transpose(0, 1).flatten(1).numpy()

    began = time.perf_counter()
    call()
    yield {"parameters": parameters, "compile": time.perf_counter() - began}
    while True:
        yield rate_and_latency(call, batch, seconds)


def train(
    method: str, form: str, classes: int, size: Sequence[int], batch: int, threads: int, seconds: float
) -> Iterator[dict[str, float]]:
    """Takes training steps with Adam and decay in the gradient; an entrant."""
    model, compiled, last, parameters = _prepared(method, form, classes, threads)
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-5, weight_decay=5e-4)
    run: Any = torch.compile(model) if compiled else model
    images, labels = _images(batch, size), torch.arange(batch) // 2

    def step() -> float:
        loss = loss_of(run(normalised(torch.from_numpy(images), last)), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss)

    began = time.perf_counter()
    step()
    yield {"parameters": parameters, "compile": time.perf_counter() - began}
    while True:
        yield rate_and_latency(step, batch, seconds)
