"""The entrants on PyTorch: the same stream, embedded and trained eagerly, channels last, and compiled."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from benchmarks import stream
from benchmarks.stream import Shape
from benchmarks.timing import rate_and_latency
from benchmarks.torch_lightmbn import LightMBN, training_loss

FORMS = {
    "eager": (False, False),
    "channels-last": (False, True),
    "compiled": (True, False),
    "compiled channels-last": (True, True),
}
TOLERANCE = 1e-4  # of the largest output: what two orders of summation leave
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def embed(
    form: str, scratch: str, shape: Mapping[str, Any], batch: int, dtype: str, threads: int, seconds: float
) -> Iterator[dict[str, float]]:
    """Embeds uint8 images into unit-length parts; an entrant."""
    sizes, device = Shape(**shape), _device(threads)
    prepared = time.perf_counter()
    model, difference = _checked_model(form, scratch, sizes, device)
    compiled, last = FORMS[form]

    def forward(images: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            _, embeddings, _ = model(normalised(images, last))
        return functional.normalize(embeddings.float(), dim=2).transpose(0, 1).flatten(1)

    run = torch.compile(forward) if compiled else forward
    images = stream.images(sizes, batch)

    def call() -> np.ndarray:
        with torch.inference_mode():
            return run(torch.from_numpy(images).to(device)).cpu().numpy()

    call()
    taken = time.perf_counter() - prepared
    call()
    yield {"largest difference": difference, "compile": taken} if compiled else {"largest difference": difference}
    while True:
        yield rate_and_latency(call, batch, seconds)


def train(
    form: str, scratch: str, shape: Mapping[str, Any], batch: int, dtype: str, threads: int, seconds: float
) -> Iterator[dict[str, float]]:
    """Takes training steps: cross-entropy and triplet loss, Adam with decay in the gradient; an entrant."""
    sizes, device = Shape(**shape), _device(threads)
    model, difference = _checked_model(form, scratch, sizes, device)
    compiled, last = FORMS[form]
    model.train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-5, weight_decay=5e-4)

    def loss_of(images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=dtype == "bfloat16"):
            features, _, logits = model(normalised(images, last))
        return training_loss(features, logits.float(), labels)

    run: Callable[..., torch.Tensor] = torch.compile(loss_of) if compiled else loss_of
    images, labels = stream.images(sizes, batch), stream.labels(sizes, batch)

    def step() -> float:
        loss = run(torch.from_numpy(images).to(device), torch.from_numpy(labels).long().to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return float(loss)

    began = time.perf_counter()
    loss = step()
    taken = time.perf_counter() - began
    step()
    yield {"loss": loss, "largest difference": difference, **({"compile": taken} if compiled else {})}
    while True:
        step()  # as ours
        found = rate_and_latency(step, batch, seconds)
        if device.type == "cuda":
            found["device memory"] = torch.cuda.max_memory_allocated()
        yield found


def compile_cold(
    form: str, scratch: str, shape: Mapping[str, Any], batch: int, dtype: str, threads: int
) -> Iterator[dict[str, float]]:
    """Compiles a training step without a cache, and leaves one to `train`; an entrant of no rounds."""
    first = next(train(form, scratch, shape, batch, dtype, threads, 0.0))
    yield {"compile": first["compile"]}


def _device(threads: int) -> torch.device:
    torch.set_num_threads(threads)
    # XLA multiplies float32 in TF32 on cards that can: so does PyTorch here.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _checked_model(form: str, scratch: str, shape: Shape, device: torch.device) -> tuple[LightMBN, float]:
    """Returns the network with our weights, whose outputs were compared with ours, and how far they were off.

    Raises:
        ValueError: they differ by more than rounding.
    """
    cache = Path(scratch) / f"inductor-{form}".replace(" ", "-")
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)  # in the scratch folder: empty when a cold start is measured
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of processes that outlives this one
    tensors, expected = stream.read(scratch)
    model = LightMBN(shape.classes, shape.backbone, shape.feature_dim)
    found = model.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()}, strict=False)
    missing = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or found.unexpected_keys:
        raise ValueError(f"names differ: {missing[:3]} are missing, {found.unexpected_keys[:3]} are not known")
    model.eval()
    with torch.inference_mode():
        outputs = model(normalised(torch.from_numpy(stream.images(shape, 2)), False))
    worst = 0.0
    for name, output in zip(("features", "embeddings", "logits"), outputs, strict=True):
        difference = float(np.abs(output.numpy() - expected[name]).max() / np.abs(expected[name]).max())
        if not difference <= TOLERANCE:
            raise ValueError(f"{name} differ from ours by {difference:.2e} of the largest, expected {TOLERANCE:.0e}")
        worst = max(worst, difference)
    model.to(device)
    if FORMS[form][1]:
        move: Any = model.to  # its annotations do not know this form
        move(memory_format=torch.channels_last)
    return model, worst


def normalised(images: torch.Tensor, channels_last: bool) -> torch.Tensor:
    """Returns uint8 images [batch, height, width, 3] normalised, as networks take them: [batch, 3, height, width]."""
    mean = torch.tensor(MEAN, device=images.device) * 255
    std = torch.tensor(STD, device=images.device) * 255
    x = ((images - mean) / std).permute(0, 3, 1, 2)
    return x if channels_last else x.contiguous()  # permuted, they lie channels last already
