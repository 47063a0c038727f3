"""Opens the data of a run: builds the dataset unless it is there, and reads its splits."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from pathlib import Path

import ml_collections
import numpy as np
from absl import logging

from deskpro_jax.data.build import builder
from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.data.load import dataset
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.runtime import cores
from deskpro_jax.runtime.processes import from_process_0
from deskpro_jax.storage.locks import locked


@dataclass(frozen=True)
class Data:
    """The splits of a run.

    Attributes:
        train: the images that are trained on.
        query: the test's queries.
        gallery: the test's gallery.
        validation: query and gallery of the identities held out of train.
        classes: number of identities of train.
        clothes: number of outfits of train, 0 where they are not known.
    """

    train: ReIDSplit
    query: ReIDSplit
    gallery: ReIDSplit
    validation: tuple[ReIDSplit, ReIDSplit] | None
    classes: int
    clothes: int


def data_folder(config: ml_collections.ConfigDict, folder: Path) -> Path:
    """Returns the folder of datasets that a run in the workdir `folder` uses."""
    default = folder / "data" if find_dataset(config.data.name).synthetic_size else Path("~/tensorflow_datasets")
    return Path(config.data.data_dir or default).expanduser()


def build_data(config: ml_collections.ConfigDict, folder: Path) -> Path:
    """Builds the dataset of a run in the workdir `folder` unless it is there; returns its own folder."""
    d, where = config.data, data_folder(config, folder)
    build = functools.partial(
        builder.build,
        d.name,
        where,
        d.raw_dir or None,
        d.build_seed,
        workers=cores.count(),
        parts_dir=d.parts_dir or None,
        allow_different_size=d.allow_different_size,
        mask_kind=d.mask_kind,
    )
    if builder.is_built(d.name, where):
        return build()
    logging.info("building %s in %s", d.name, where)
    where.mkdir(parents=True, exist_ok=True)
    with locked(where, seconds=math.inf):  # of two runs that need it, one builds and the other waits
        return build()


def _built_data(config: ml_collections.ConfigDict, folder: Path) -> Path:
    """Builds the dataset unless it is there; returns the folder of datasets."""
    from_process_0(lambda: str(build_data(config, folder)))  # one process builds, the others wait for it
    return data_folder(config, folder)


def load_data(config: ml_collections.ConfigDict, folder: Path) -> Data:
    """Builds the dataset unless it is there, and opens its splits."""
    d, where = config.data, _built_data(config, folder)
    train, query, gallery = (dataset.load(d.name, where, split) for split in ("train", "query", "gallery"))
    validation = None
    if d.validation_identities:
        train, *held = dataset.hold_out(train, d.validation_identities, config.seed)
        validation = (held[0], held[1])
    # Identities without an image that is used are no classes, as in the released code.
    train = dataset.usable(train, d.require_face, d.require_mask)
    query, gallery = mark_test(config, query, gallery)
    classes, clothes = dataset.train_classes(train), dataset.clothes_classes(train)
    return Data(train, query, gallery, validation, len(classes), len(clothes))


def load_test(config: ml_collections.ConfigDict, folder: Path) -> tuple[ReIDSplit, ReIDSplit]:
    """Opens only query and gallery: evaluation needs no training split."""
    where = _built_data(config, folder)
    query, gallery = (dataset.load(config.data.name, where, split) for split in ("query", "gallery"))
    return mark_test(config, query, gallery)


def mark_test(config: ml_collections.ConfigDict, query: ReIDSplit, gallery: ReIDSplit) -> tuple[ReIDSplit, ReIDSplit]:
    """Marks the junk images and distractors of query and gallery, as `eval` lists them, and logs their number."""
    junk, distractors = config.eval.junk_identities, config.eval.distractor_identities
    for name, meaning, listed in (
        ("junk_identities", "are ignored", junk),
        ("distractor_identities", "match nobody", distractors),
    ):
        if listed:
            counts = [int(np.isin(split.identity, listed).sum()) for split in (query, gallery)]
            log = logging.info if any(counts) else logging.warning
            log("eval.%s: %d query and %d gallery images %s", name, *counts, meaning)
    return dataset.mark_identities(query, junk, distractors), dataset.mark_identities(gallery, junk, distractors)
