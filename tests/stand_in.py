"""Script of test_faults.py: the command line with streams of a few numbers, which compile at once.

Everything around the networks is as it is: data, training step, loop, checkpoints, metrics, evaluation, results.
Arguments: WHEN, then those of deskpro_jax.main. WHEN is "-" or signals that the process gets, SIGNAL@MOMENT joined by
commas; moments are step-PHASE-N, save-PHASE-N (a file of that checkpoint is there), evaluate-PHASE-N and
compile-PHASE-N (the step is compiled, and the one after N is next).
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import flax.linen as nn
import jax
import jax.numpy as jnp
from absl import app

from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.cli import train as main
from deskpro_jax.evaluation import evaluate
from deskpro_jax.methods import deskpro
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.lmbn import PARTS
from deskpro_jax.runtime import progress
from deskpro_jax.runtime.compilation import compile_now
from deskpro_jax.train import loop

NEVER = "-"
FIELDS = {"eval__every": 1, "train__log_every": 2, "train__base_lr": 1e-3}  # of a run that is watched closely


class Small(nn.Module):
    """In place of a LightMBN: seven parts from the mean colour of four bands."""

    num_classes: int
    backbone: str = "x1_0"
    os_streams: str = "abcd"
    attention: str = "none"
    feature_dim: int = 512
    drop_ratio: float = 0.33
    remat: str = "none"
    depthwise: str = "auto"
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool, valid: jax.Array | None = None
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        bands = images.reshape(images.shape[0], 4, -1, *images.shape[2:]).mean((2, 3)).reshape(len(images), 12)
        kernel = self.param("kernel", initialisers.normal(0.3), (12, len(PARTS), self.feature_dim))
        features = jnp.einsum("bi,ipd->pbd", bands, kernel)[:, :, None, None]
        neck = layers.BatchNorm((len(PARTS),), frozen_bias=True, name="neck")
        embeddings = neck(features, train=train, valid=valid)
        logits = layers.Pointwise(
            self.num_classes, (len(PARTS),), kernel_init=initialisers.normal(0.1), name="classifier"
        )(embeddings)
        outputs = {"logits": logits, "features": features, "embeddings": embeddings}
        middle = {} if self.attention == "none" else {"attention": jax.nn.sigmoid(bands[:, :4, None])}
        return {name: value[:, :, 0, 0] for name, value in outputs.items()}, middle


@contextlib.contextmanager
def small_streams() -> Iterator[None]:
    """Puts `Small` in the place of every stream."""
    initialisers._init_and_shapes.cache_clear()  # remembers shapes by the module, which looks the same
    with mock.patch.object(deskpro, "LightMBN", Small):
        yield
    initialisers._init_and_shapes.cache_clear()


@contextlib.contextmanager
def moments(reached: Callable[[str], None]) -> Iterator[None]:
    """Calls `reached` with the name of each moment of a run; the one of a save comes from another thread."""
    now: list[Any] = ["", 0]  # phase and step
    embed_split, save = evaluate.embed_split, CheckpointStore.save

    class Telling(progress.Progress):
        def __init__(self, total: int, description: str, **options: Any):
            super().__init__(total, description, **options)
            now[:] = [description, options.get("start", 0)]

        def advance(self, terms: Any = None, steps: int = 1) -> None:
            super().advance(terms, steps)
            now[1] += steps
            reached(f"step-{now[0]}-{now[1]}")

    def embed(*given: Any, **options: Any) -> Any:
        reached(f"evaluate-{now[0]}-{now[1]}")
        return embed_split(*given, **options)

    def saving(store: CheckpointStore, step: int, *given: Any, **options: Any) -> bool:
        def watch() -> None:
            whole = store._directory / str(step)
            while not whole.is_dir() and not any(p.is_file() for p in store._directory.glob("*tmp*/**/*")):
                time.sleep(0.001)
            reached(f"save-{store._directory.parent.name}-{step}")

        threading.Thread(target=watch, daemon=True).start()
        return save(store, step, *given, **options)

    def compiling(*given: Any) -> Any:
        reached(f"compile-{now[0]}-{now[1]}")
        return compile_now(*given)

    with (
        mock.patch.object(loop, "Progress", Telling),
        mock.patch.object(evaluate, "embed_split", embed),
        mock.patch.object(CheckpointStore, "save", saving),
        mock.patch.object(loop, "compile_now", compiling),
    ):
        yield


def sender(when: str) -> Callable[[str], None]:
    """Returns what sends this process the signals of `when` at their moments, each once."""
    left = [entry.split("@") for entry in when.split(",") if entry != NEVER]

    def reached(moment: str) -> None:
        for entry in [e for e in left if e[1] == moment]:
            left.remove(entry)
            os.kill(os.getpid(), signal.Signals[entry[0]])

    return reached


if __name__ == "__main__":
    with small_streams(), moments(sender(sys.argv[1])):
        app.run(main.main, ["main", *sys.argv[2:]], flags_parser=main.parse_flags)
