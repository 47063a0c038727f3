"""Builds datasets: a TFDS builder that writes array_record files without TensorFlow."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import itertools
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from absl import logging

import deskpro_jax
from deskpro_jax.data.build import prepared_examples, shards, write_shards
from deskpro_jax.data.build.list_files import list_dataset
from deskpro_jax.data.build.published_sizes import check_sizes
from deskpro_jax.data.build.shards import Shard
from deskpro_jax.data.build.workers import run_local
from deskpro_jax.data.datasets.find import NAMES, find_dataset
from deskpro_jax.data.datasets.spec import DatasetSpec
from deskpro_jax.data.masks import AUTO
from deskpro_jax.data.records import BUILDER_NAME, Records, columns, dataset_path, write_columns
from deskpro_jax.data.schema import SCHEMES, SPLITS, UNKNOWN_TRACKLET, Example
from deskpro_jax.data.synthetic import generate
from deskpro_jax.errors import InputError, RunError

_REMEDY = "set data.data_dir (--out) to another folder or delete this one"
_PACKAGES = ("pillow", "numpy", "tensorflow-datasets", "array_record")
_DESCRIPTION = "Cloth-changing person re-identification: photos of people with part labels and faces."

_Groups = Iterator[tuple[str, Iterator[tuple[str, Example]]]]


class CcReid(tfds.core.GeneratorBasedBuilder):
    """The TFDS builder; one config for each dataset. `build` sets the fields and runs it.

    Attributes:
        shards: record files to collect; without any a synthetic dataset is drawn.
        origin: metadata of labels, masks and faces, and where they come from.
        seed: seed of a drawn dataset.
        workers: processes that draw.
    """

    name = BUILDER_NAME
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name=name, version=version) for name in NAMES for version in find_dataset(name).versions
    ]
    shards: tuple[Shard, ...] = ()
    origin: dict[str, Any] = {}  # noqa: RUF012 (replaced as a whole, by instance)
    seed: int = 0
    workers: int = 0

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self, description=_DESCRIPTION, features=shards.features(), metadata=tfds.core.MetadataDict()
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager
        size = find_dataset(self.builder_config.name).synthetic_size
        groups = itertools.groupby(generate.generate(size, self.seed, self.workers), key=lambda pair: pair[0])
        return {split: self._generate_examples(split, groups) for split in SPLITS}

    def _generate_examples(self, split: str, groups: _Groups) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the examples of a split; the source goes through the splits in order."""
        drawn, group = next(groups, (None, iter(())))
        if drawn != split:
            raise RunError(f"dataset {self.builder_config.name}: split {drawn} came where {split} was expected")
        for _, example in group:
            yield example.image_id, shards.encoded(example)

    def _generate_splits(self, dl_manager: Any, download_config: Any) -> Sequence[tfds.core.SplitInfo]:
        """Collects the shards that were written, or draws."""
        if not self.shards:
            return super()._generate_splits(dl_manager, download_config)
        return [self._collect(split) for split in SPLITS]

    def _collect(self, split: str) -> tfds.core.SplitInfo:
        chosen = [shard for shard in self.shards if shard.split == split]
        written = [
            (shard, report) for shard, report in zip(chosen, shards.reports(chosen), strict=True) if report.images
        ]
        template = self._get_filename_template(split_name=split)
        for index, (shard, _) in enumerate(written):
            _link(shard.records, Path(template.sharded_filepath(shard_index=index, num_shards=len(written))))
        return tfds.core.SplitInfo(
            name=split,
            shard_lengths=[report.images for _, report in written],
            num_bytes=sum(report.size for _, report in written),
            filename_template=template,
        )

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        """Writes the records, then what is read from them: columns, checksums, sizes, metadata."""
        super()._download_and_prepare(dl_manager, download_config)
        folder = Path(self.data_path)  # not yet the final folder: TFDS renames it when all is done
        checksums, sizes = {}, {}
        for split in SPLITS:
            records = Records(folder, split)
            checksums[split] = checksum(records)
            values = columns(records)
            sizes[split] = _sizes(values)
            write_columns(folder, split, values)
        self.info.metadata.update(self._metadata(), checksums=checksums, sizes=sizes)

    def _metadata(self) -> dict[str, Any]:
        scheme = SCHEMES[self.origin["label_scheme"]]
        versions = {"deskpro_jax": deskpro_jax.__version__}
        versions |= {package: importlib.metadata.version(package) for package in _PACKAGES}
        labels = {"labels": list(scheme.labels), "clothing": list(scheme.clothing)}
        return {**self.origin, **labels, "version": str(self.version), "versions": versions}


def _sizes(values: dict[str, np.ndarray]) -> dict[str, int]:
    """Returns the numbers of images, identities, cameras, masks and faces in a split."""
    return {
        "images": len(values["identity"]),
        "identities": len(np.unique(values["identity"])),
        "cameras": len(np.unique(values["camera"][values["camera"] >= 0])),
        "masks": int(values["has_mask"].sum()),
        "faces": int(values["has_face"].sum()),
        "restored_faces": int(values["has_restored_face"].sum()),
    }


def _link(file: Path, target: Path) -> None:
    """Links a file to a second path, or copies it where the file system has no hard links."""
    try:
        os.link(file, target)
    except OSError:
        shutil.copyfile(file, target)


def checksum(examples: Records | list[Example]) -> str:
    """Returns the SHA-256 of a split's content, whatever the order of its examples."""
    digests = []
    for example in examples:
        digest = hashlib.sha256()
        # Those of datasets of earlier versions stay what they were: labels that are not known say nothing.
        later = [value for value in (example.tracklet, example.scale) if value != UNKNOWN_TRACKLET]
        for value in (*example[: Example._fields.index("tracklet")], *later):
            content = b"-" if value is None else value if isinstance(value, bytes) else str(value).encode()
            digest.update(len(content).to_bytes(8, "big") + content)
        digests.append(digest.digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def is_built(name: str, data_dir: str | Path) -> bool:
    """Returns whether a complete dataset is in `data_dir`.

    Raises:
        InputError: no dataset is called `name`.
    """
    return (dataset_path(name, data_dir) / "dataset_info.json").exists()


def build(
    name: str,
    data_dir: str | Path,
    raw_dir: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
    workers: int = 0,
    *,
    parts_dir: str | Path | None = None,
    with_val: bool = False,
    allow_different_size: bool = False,
    skip_bad: bool = False,
    mask_kind: str = AUTO,
    run: write_shards.Runner | None = None,
    warn: Callable[[str], None] = logging.warning,
) -> Path:
    """Builds a dataset unless it exists.

    The dataset appears when it is complete and not before. A build of files that is interrupted keeps its finished
    shards and goes on from them when it is called again; a shard whose files changed is written anew. The bytes depend
    on the files and the installed versions, not on `workers`, `run` or interruptions.

    Args:
        name: of the dataset, as for `find_dataset`.
        data_dir: where TFDS datasets are kept.
        raw_dir: the authors' layout, prepared folders, or a CSV (`listing.list_dataset`); None or "" draws
            a synthetic dataset.
        seed: seed of a drawn dataset.
        progress: shows progress on standard error.
        workers: processes that draw or read files; 0 does it in this one.
        parts_dir: masks and faces to join to an authors' layout or a CSV; None or "" for none.
        with_val: adds the validation images of PRCC to train.
        allow_different_size: builds an authors' layout whose splits differ in size from those published.
        skip_bad: leaves out files that can't be used; they are reported, and listed in the metadata.
        mask_kind: what the masks are, one of `masks.MASK_KINDS`; AUTO decides from the files.
        run: writes the shards; None runs `workers.run_local` with `workers`.
        warn: is called with a line about files left out or unused and about sizes that are not as published.

    Returns:
        The dataset's folder.

    Raises:
        InputError: the name is unknown, files can't be used (all of them are listed), sizes differ from
            those published, or the dataset exists with another seed.
        MissingInputError: files to build from are missing.
        RunError: another process is building the dataset.
    """
    folder = dataset_path(name, data_dir)
    spec = find_dataset(name)
    drawn = bool(spec.synthetic_size) and not raw_dir
    if drawn and mask_kind != AUTO:
        raise InputError(f"dataset {spec.name} is drawn with its label maps: leave --mask-kind (data.mask_kind) out")
    config = spec.name if spec.name in NAMES else tfds.core.BuilderConfig(name=spec.name)
    builder = CcReid(config=config, version=folder.name, data_dir=str(Path(data_dir).expanduser()))
    if is_built(name, data_dir):
        if folder.name != spec.versions[0]:
            warn(
                f"{folder} holds version {folder.name} of {spec.name}, which is used as it is; its scores can't be "
                f"compared with those of version {spec.versions[0]}, which another data.data_dir (--out) would get"
            )
        _check_same(folder, builder.info.metadata, seed if drawn else None, with_val, mask_kind)
        if drawn:
            _check_size(folder, spec, builder.info.splits["train"].num_examples)
        return folder
    with contextlib.ExitStack() as stack:
        if drawn:
            builder.seed, builder.workers = seed, workers
            builder.origin = {**prepared_examples.synthetic_origin(spec.synthetic_size, seed), "source": "drawn"}
        else:
            raw, parts = (Path(path).expanduser() if path else None for path in (raw_dir, parts_dir))
            listing = list_dataset(name, raw, parts, with_val, mask_kind)
            check_sizes(spec, listing, allow_different_size, with_val, warn)
            work = stack.enter_context(write_shards.only_builder(folder))
            run = run or (lambda planned: run_local(planned, workers, progress))
            builder.shards = write_shards.write_shards(listing, work, skip_bad, run, warn)
            builder.origin = listing.origin
            if name != spec.name:
                builder.origin["dataset"] = name  # where the spec is, for data_prep.check
        with _bars(progress and sys.stderr.isatty()), contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(file_format="array_record")
    return folder


def _check_same(folder: Path, metadata: dict[str, Any], seed: int | None, with_val: bool, mask_kind: str) -> None:
    """Raises InputError if an existing dataset was built in another way than is asked for."""
    if seed is not None and metadata.get("seed") != seed:
        raise InputError(
            f"{folder} was built with seed {metadata.get('seed')}, data.build_seed asks for {seed}: {_REMEDY}"
        )
    if with_val and not metadata.get("with_val"):
        raise InputError(f"{folder} was built without the validation images that --with-val asks for: {_REMEDY}")
    recorded = metadata.get("mask_kind") or metadata.get("label_scheme")
    if mask_kind not in (AUTO, recorded):
        raise InputError(
            f"{folder} was built from masks read as {recorded}, --mask-kind (data.mask_kind) asks for {mask_kind}: "
            f"{_REMEDY}"
        )


def _check_size(folder: Path, spec: DatasetSpec, images: int) -> None:
    """Raises InputError if an existing drawn dataset has the size of another release."""
    expected = generate.SIZES[spec.synthetic_size].train_images
    if images != expected:
        raise InputError(f"{folder} has {images} training images, {spec.name} is drawn with {expected} now: {_REMEDY}")


@contextlib.contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Shows or hides the progress bars of TFDS inside the context."""
    if shown:
        yield
        return
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.enable_progress_bar()
