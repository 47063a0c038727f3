"""What is measured against what: entrants that take turns, each in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

OURS = "deskpro_jax"  # the entrant that the others are compared with
BEGAN = "DESKPRO_BENCHMARK_BEGAN"  # environment variable of an entrant: seconds since 1970 when it was started


@dataclass(frozen=True)
class Settings:
    """What the command line asks for.

    Attributes:
        scratch: empty folder for files that entrants leave to each other.
        quick: tiny sizes, to see that everything runs; the figures mean nothing.
        scale: share of the images that evaluation, re-ranking, pipeline and dataset take.
        repeats: rounds that the entrants take turns for; None for each benchmark's own number.
        seconds: that an entrant repeats a short call for, in each round.
        threads: processors that every entrant may use.
        batches: images at a time, of `embedding`.
        train_batch: images of a training step.
        phases: training steps to measure, of `train.PHASES`.
        dtype: of the networks, "float32" or "bfloat16".
        torch: forms of the PyTorch network that take part, of `torch_forms.FORMS`; none where it is not installed.
        methods: published methods to measure, of `methods.METHODS`; none for all of them.
    """

    scratch: Path
    quick: bool = False
    scale: float = 1.0
    repeats: int | None = None
    seconds: float = 1.0
    threads: int = 1
    batches: tuple[int, ...] = (1, 8, 32, 128)
    train_batch: int = 8
    phases: tuple[str, ...] = ("stream", "teacher", "student")
    dtype: str = "float32"
    torch: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()

    def rounds(self, usual: int) -> int:
        """Returns how many rounds a race takes: the number asked for, 2 if quick, else the benchmark's own."""
        return self.repeats or (2 if self.quick else usual)

    def count(self, images: int, quick: int) -> int:
        """Returns how many images to take where the real size is `images`."""
        return quick if self.quick else max(1, round(images * self.scale))


@dataclass(frozen=True)
class Entrant:
    """One of those that are compared.

    Attributes:
        name: what it is called in the results.
        function: "module:function" of a generator. It is imported in the entrant's own process, prepares, yields what
            there is to say of that by metric, then for each round the figures of one repeat.
        arguments: of the function, as JSON values.
        threads: processors it may use; None for those of the settings.
    """

    name: str
    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    threads: int | None = None


@dataclass(frozen=True)
class Race:
    """Entrants that do the same work and take turns, so that a change of the machine's load meets all of them.

    Attributes:
        case: what is done, as "batch 8"; names the rows of the results.
        entrants: who does it.
        rounds: how often each repeats it; 0 for what is known once it is prepared.
        setup: True for what others need, as files: its figures are not kept, and if it fails the rest is not begun.
        agree: metric of the preparation -> largest relative difference between entrants; beyond it nothing is timed.
    """

    case: str
    entrants: tuple[Entrant, ...]
    rounds: int
    setup: bool = False
    agree: Mapping[str, float] = field(default_factory=dict)
