"""Turns a split into batches on the host: reads, decodes, crops and resizes, in threads or worker processes."""

from __future__ import annotations

import dataclasses
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, cast

import grain
import ml_collections
import numpy as np
from absl import flags, logging

from deskpro_jax.data.load import augment, decoding, sampling
from deskpro_jax.data.load.dataset import (
    ReIDSplit,
    class_indices,
    clothes_classes,
    clothes_indices,
    train_classes,
    usable,
)
from deskpro_jax.data.load.decoding import FULL, Box, resize
from deskpro_jax.errors import InputError, RunError
from deskpro_jax.runtime import cores

__all__ = [
    "FIELDS",
    "Batch",
    "Batches",
    "device_enlarges",
    "eval_batches",
    "resize",
    "steps_per_epoch",
    "train_batches",
]

Batch = dict[str, np.ndarray]
FIELDS = decoding.FIELDS
_PREFETCH = 4  # batches that wait for the device
_DEATHS = 3  # of workers over one batch, after which something else is wrong than one process that was killed
_WORKER_DIED = "terminated unexpectedly"  # Grain's message about a worker process
_SKIPPED = "skipped"  # travels with a batch from the workers to `Batches`, never to the caller


class _Loader(Protocol):
    split: ReIDSplit

    def __call__(self, step: int) -> Batch: ...


class Batches(Iterator[Batch]):
    """An iterator over batches that knows which images it skipped, and outlives its worker processes.

    Attributes:
        skipped: how often each unreadable image was skipped, by image id; only with data.skip_corrupt.
    """

    def __init__(self, read: Callable[[int], Iterator[Batch]], split: ReIDSplit) -> None:
        """Starts with the first batch; `read` gives the batches from any position on."""
        self._read = read
        self._batches = read(0)
        self._taken = 0
        self._split = split
        self.skipped: Counter[str] = Counter()

    def __next__(self) -> Batch:
        batch = dict(self._next())
        for index in batch.pop(_SKIPPED).tolist():
            image_id = self._split.image_id[index]
            if image_id not in self.skipped:
                logging.warning(
                    "image %s of %s/%s cannot be read and is skipped (%s)",
                    *(image_id, self._split.name, self._split.split, self._split.where(index)),
                )
            self.skipped[image_id] += 1
        return batch

    def _next(self) -> Batch:
        deaths = 0
        while True:
            try:
                batch = next(self._batches)
            except RuntimeError as error:
                if _WORKER_DIED not in str(error):
                    raise
                deaths += 1
                self.close()
                if deaths == _DEATHS:
                    raise RunError(
                        f"a data worker died {deaths} times over batch {self._taken} of {self._split.name}/"
                        f"{self._split.split} ({_short(error)}): if memory is short, lower data.workers or set it to 0"
                    ) from error
                logging.warning(
                    "a data worker of %s/%s died (%s): the workers are started again at batch %d, nothing is lost",
                    *(self._split.name, self._split.split, _short(error), self._taken),
                )
                self._batches = self._read(self._taken)
                continue
            self._taken += 1
            return batch

    def close(self) -> None:
        """Stops the threads or processes that read ahead."""
        close = getattr(self._batches, "close", None)
        if close is not None:
            close()


def _short(error: RuntimeError) -> str:
    return str(error).split(". ")[0]  # Grain adds where to look, which does not help for a killed process


@dataclasses.dataclass
class _TrainLoader:
    """Loads this host's part of the training batch of a step; pure, so any worker may load any step."""

    split: ReIDSplit
    classes: np.ndarray
    clothes_classes: np.ndarray
    decoder: decoding.Decoder
    identities: int
    images_per_identity: int
    steps: int
    crop: float
    crop_scale: float
    shared_draws: int
    seeds: tuple[int, ...]
    skip_corrupt: bool
    slots: tuple[int, int]
    with_index: bool = False
    sampler: str = "identities"
    frames: int = 0
    pieces: np.ndarray | None = None
    plan: tuple[int, np.ndarray] | None = None

    def __call__(self, step: int) -> Batch:
        epoch, step = divmod(step, self.steps)
        plan = self.plan
        if plan is None or plan[0] != epoch:  # threads that meet here compute the same thing
            self.plan = plan = (epoch, self._epoch(epoch))
        indices = plan[1][step]
        start, stop = self.slots
        batch = self.decoder.empty(stop - start)
        skipped: list[int] = []
        used = np.zeros(stop - start, np.int64)
        for row, slot in enumerate(range(start, min(stop, len(indices)))):
            key = [*self.seeds, epoch, step, slot]
            draw = [*self.seeds, epoch, step % self.shared_draws] if self.shared_draws else key
            box = augment.draw_crop(draw, self.crop, self.crop_scale)
            used[row] = self._fill(batch, row, int(indices[slot]), box, key, skipped)
            batch["valid"][row] = True
        identity, clothes = self.split.identity[used], np.where(batch["valid"], self.split.clothes[used], -1)
        batch["identity"] = class_indices(identity, self.classes)
        batch["clothes"], batch["clothes_range"] = clothes_indices(identity, clothes, self.clothes_classes)
        if self.with_index:
            batch["index"] = np.where(batch["valid"], used, -1).astype(np.int32)
        batch[_SKIPPED] = np.array(skipped, np.int64)
        return batch

    def _epoch(self, epoch: int) -> np.ndarray:
        """Returns the images of every batch of an epoch."""
        drawn = np.arange(len(self.split))
        if self.pieces is not None:
            drawn = sampling.draw_frames(self.pieces, self.frames, self.seeds, epoch)
        if self.sampler == "images":
            size = self.identities * self.images_per_identity
            return drawn[sampling.shuffled_batches(len(drawn), size, self.seeds, epoch)]
        identity = self.split.identity[drawn]
        return drawn[sampling.epoch_batches(identity, self.identities, self.images_per_identity, self.seeds, epoch)]

    def _fill(self, batch: Batch, row: int, index: int, box: Box, key: list[int], skipped: list[int]) -> int:
        """Decodes the image `index`, or else another one of its identity; returns which."""
        try:
            self.decoder.fill(batch, row, self.split, index, box)
            return index
        except InputError:
            if not self.skip_corrupt:
                raise
        skipped.append(index)
        identity = self.split.identity[index]
        for other in (
            np.random.default_rng([*key, 1]).permutation(np.flatnonzero(self.split.identity == identity)).tolist()
        ):
            if other in skipped:
                continue
            try:
                self.decoder.fill(batch, row, self.split, other, box)
                return other
            except InputError:
                skipped.append(other)
        raise InputError(
            f"no image of identity {identity} in {self.split.name}/{self.split.split} can be read: build it again"
        )


@dataclasses.dataclass
class _EvalLoader:
    """Loads this host's part of the evaluation batch of a step, in the order of the split."""

    split: ReIDSplit
    decoder: decoding.Decoder
    batch_size: int
    skip_corrupt: bool
    slots: tuple[int, int]

    def __call__(self, step: int) -> Batch:
        start, stop = (step * self.batch_size + slot for slot in self.slots)
        batch = self.decoder.empty(stop - start)
        batch["identity"] = np.full(stop - start, -1, np.int32)
        batch["index"] = np.full(stop - start, -1, np.int32)
        skipped = []
        for row, index in enumerate(range(start, min(stop, len(self.split)))):
            try:
                self.decoder.fill(batch, row, self.split, index, FULL)
            except InputError:
                if not self.skip_corrupt:
                    raise
                skipped.append(index)
                continue
            batch["identity"][row] = self.split.identity[index]
            batch["index"][row] = index
            batch["valid"][row] = True
        batch[_SKIPPED] = np.array(skipped, np.int64)
        return batch


def device_enlarges(split: ReIDSplit, config: ml_collections.ConfigDict, fields: Sequence[str]) -> tuple[str, ...]:
    """Returns the fields that are better resized on the device: their photos are smaller than the network's input."""
    return _decoder(split, config, fields).small(split)


def steps_per_epoch(split: ReIDSplit, config: ml_collections.ConfigDict) -> int:
    """Returns the number of batches in an epoch of `train_batches`, the same in every epoch."""
    d = config.data
    chosen = usable(split, d.require_face, d.require_mask)
    pieces = _pieces(chosen, config)
    images = len(chosen) if pieces is None else sampling.drawn_frames(pieces, d.frames_per_tracklet)
    return sampling.steps_per_epoch(images, d.identities, d.images_per_identity)


def _pieces(split: ReIDSplit, config: ml_collections.ConfigDict) -> np.ndarray | None:
    """Returns the pieces of tracklets of which frames are drawn; None where all images are used."""
    if not config.data.frames_per_tracklet:
        return None
    return sampling.pieces_of(split.tracklet, split.image_id, config.data.tracklet_length)


def train_batches(
    split: ReIDSplit,
    config: ml_collections.ConfigDict,
    *,
    seed: int,
    phase: str,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    fields: Sequence[str] = FIELDS,
    pad_to_multiple: int = 1,
    enlarge: Sequence[str] = (),
    with_index: bool = False,
) -> Batches:
    """Yields training batches without end, a function of (seed, phase, step) whatever the workers and hosts.

    Args:
        split: the training split; its identities in ascending order are the classes, likewise its outfits.
        config: the configuration; `data` and the crop fields of `augment` are read.
        seed: the run's seed.
        phase: name of the training phase; phases see the images in different orders.
        start_step: number of batches to leave out, for resuming.
        process_index: this host.
        process_count: number of hosts; each gets an equal, contiguous part of every batch.
        fields: which images to decode, of `FIELDS`; `decoding.GARMENTS` adds maps of upper clothes and trousers.
        pad_to_multiple: rows with valid=False are added until the global batch is a multiple of this.
        enlarge: photos among `fields` whose enlarging is left to the device: `enlarging.placed` gives the batch that
            comes without.
        with_index: adds `index` [batch] int32, the position among the usable images of the split; -1 for padding.

    Returns:
        Iterator of batches: the images of `fields` (uint8), identity (int32 class), clothes and clothes_range (int32,
        as `clothes_indices` gives them), has_face, has_mask, valid. has_face is True where every face among `fields`
        exists.

    Raises:
        InputError: on a field that does not fit, too few identities, or (while iterating) an unreadable image.
    """
    d = config.data
    if seed < 0:
        raise InputError(f"the seed is {seed}, expected 0 or greater")
    chosen = usable(split, d.require_face, d.require_mask)
    seeds = (seed, zlib.crc32(phase.encode()))
    size = -(-d.identities * d.images_per_identity // pad_to_multiple) * pad_to_multiple
    if config.augment.crop_scale < 1:
        raise InputError(f"augment.crop_scale is {config.augment.crop_scale}, expected 1 or greater")
    if config.augment.shared_draws < 0:
        raise InputError(f"augment.shared_draws is {config.augment.shared_draws}, expected 0 or a number of draws")
    loader = _TrainLoader(
        split=chosen,
        classes=train_classes(split),
        clothes_classes=clothes_classes(split),
        decoder=_decoder(split, config, fields, enlarge),
        identities=d.identities,
        images_per_identity=d.images_per_identity,
        steps=steps_per_epoch(split, config),
        crop=config.augment.crop,
        crop_scale=config.augment.crop_scale,
        shared_draws=config.augment.shared_draws,
        seeds=seeds,
        skip_corrupt=d.skip_corrupt,
        slots=_host_slots(size, process_index, process_count),
        with_index=with_index,
        sampler=d.sampler,
        frames=d.frames_per_tracklet,
        pieces=_pieces(chosen, config),
    )
    loader._epoch(0)  # fails here and not in a worker when the split has too few identities or images
    return _run(loader, range(start_step, 1 << 40), d.workers)


def eval_batches(
    split: ReIDSplit,
    config: ml_collections.ConfigDict,
    batch_size: int,
    fields: Sequence[str] = ("body", "face"),
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Yields the whole split once, in order and without augmentation.

    Args:
        split: any split.
        config: the configuration; `data` is read.
        batch_size: global batch size.
        fields: which images to decode, of `FIELDS`.
        process_index: this host.
        process_count: number of hosts; each gets an equal, contiguous part of every batch.

    Returns:
        Iterator of batches as of `train_batches`, but `identity` holds the dataset's own numbers, there are no clothes,
        and `index` [batch] int32 is the position in the split. Where valid is False (padding of the last batch, and
        with data.skip_corrupt unreadable images) both are -1.

    Raises:
        InputError: on a field that does not fit, or (while iterating) an unreadable image.
    """
    slots = _host_slots(batch_size, process_index, process_count)
    loader = _EvalLoader(split, _decoder(split, config, fields), batch_size, config.data.skip_corrupt, slots)
    return _run(loader, range(-(-len(split) // batch_size)), config.data.workers)


def _decoder(
    split: ReIDSplit, config: ml_collections.ConfigDict, fields: Sequence[str], enlarge: Sequence[str] = ()
) -> decoding.Decoder:
    body, face = tuple(config.data.body_size), tuple(config.data.face_size)
    clothing = tuple(config.data.clothing) or split.clothing
    labels, interpolation = len(split.scheme.labels), config.data.interpolation
    garments = split.scheme.upper, split.scheme.trousers
    return decoding.Decoder(tuple(fields), body, face, clothing, labels, tuple(enlarge), interpolation, garments)


def _host_slots(size: int, process_index: int, process_count: int) -> tuple[int, int]:
    if size % process_count:
        raise InputError(
            f"a batch of {size} images does not divide among {process_count} hosts: change data.identities, "
            "data.images_per_identity or eval.batch"
        )
    rows = size // process_count
    return process_index * rows, (process_index + 1) * rows


def _run(loader: _Loader, steps: range, workers: int) -> Batches:
    """Loads the batches of `steps` ahead of their use."""
    if workers < 0:
        raise InputError(f"data.workers is {workers}, expected 0 (threads) or a number of processes")
    if workers and not flags.FLAGS.is_parsed():  # workers get the flags, which a library caller never parsed
        flags.FLAGS.mark_as_parsed()

    def read(position: int) -> Iterator[Batch]:
        source = grain.MapDataset.range(steps.start + position, steps.stop).map(loader)
        if workers == 0:
            threads = min(_PREFETCH, cores.count())
            dataset = source.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=_PREFETCH))
        else:
            dataset = source.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2))
            dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
        return cast(Iterator[Any], iter(dataset))

    return Batches(read, loader.split)
