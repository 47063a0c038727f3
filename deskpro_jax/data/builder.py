"""Builds datasets: a TFDS builder that writes array_record files without TensorFlow."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import io
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

import deskpro_jax
from deskpro_jax.data import layouts, naming, synthetic
from deskpro_jax.data.dataset import BUILDER_NAME, NAMES, VERSION, Records, columns, dataset_path, write_columns
from deskpro_jax.data.schema import SCHEMES, SPLITS, Example
from deskpro_jax.errors import InputError, MissingInputError, RunError

_SYNTHETIC = "synthetic_"
_PACKAGES = ("pillow", "numpy", "tensorflow-datasets", "array_record")
_DESCRIPTION = "Cloth-changing person re-identification: photos of people with part labels and faces."


_Groups = Iterator[tuple[str, Iterator[tuple[str, Example]]]]


class CcReid(tfds.core.GeneratorBasedBuilder):
    """The TFDS builder; one config for each dataset. `build` sets the fields and runs it.

    Attributes:
      raw_dir: Prepared folders to build from; None draws a synthetic dataset.
      seed: Seed of a drawn dataset.
      workers: Processes that draw.
    """

    name = BUILDER_NAME
    VERSION = tfds.core.Version(VERSION)
    BUILDER_CONFIGS: ClassVar = [tfds.core.BuilderConfig(name=name) for name in NAMES]
    raw_dir: Path | None = None
    seed: int = 0
    workers: int = 0

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features
        photo, labels = features.Image(shape=(None, None, 3)), features.Image(shape=(None, None, 1))
        return tfds.core.DatasetInfo(
            builder=self,
            description=_DESCRIPTION,
            features=features.FeaturesDict(
                {
                    "image_id": features.Text(),
                    "body": photo,
                    "parts": features.Sequence(labels),  # 0 or 1: TFDS has no optional image
                    "face": features.Sequence(photo),
                    "restored_face": features.Sequence(photo),
                    "identity": np.int64,
                    "camera": np.int64,
                    "clothes": np.int64,
                }
            ),
            metadata=tfds.core.MetadataDict(),
        )

    def _source(self) -> Iterator[tuple[str, Example]]:
        if self.raw_dir is not None:
            return layouts.read_prepared(self.raw_dir, self.builder_config.name)
        if self.builder_config.name.startswith(_SYNTHETIC):
            return synthetic.generate(self._size(), self.seed, self.workers)
        raise MissingInputError(naming.how_to_get(self.builder_config.name, None))

    def _size(self) -> str:
        return self.builder_config.name.removeprefix(_SYNTHETIC)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[str, dict[str, Any]]]]:
        del dl_manager
        groups = itertools.groupby(self._source(), key=lambda pair: pair[0])
        return {split: self._generate_examples(split, groups) for split in SPLITS}

    def _generate_examples(self, split: str, groups: _Groups) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields the next group of the source, which goes through the splits in order."""
        found, group = next(groups, (None, iter(())))
        if found != split:
            raise RunError(f"dataset {self.builder_config.name}: split {found} came where {split} was expected")
        for _, example in group:
            yield example.image_id, _encoded(example)

    def _download_and_prepare(self, dl_manager: Any, download_config: Any) -> None:
        """Writes the records, then what is read from them: columns, checksums, metadata."""
        super()._download_and_prepare(dl_manager, download_config)
        folder = Path(self.data_path)  # not yet the final folder: TFDS renames it when all is done
        checksums = {}
        for split in SPLITS:
            records = Records(folder, split)
            checksums[split] = checksum(records)
            write_columns(folder, split, columns(records))
        self.info.metadata.update(self._metadata(), checksums=checksums)

    def _metadata(self) -> dict[str, Any]:
        if self.raw_dir is None:
            origin = layouts.synthetic_origin(self._size(), self.seed)
        else:
            origin = layouts.origin(self.raw_dir)
        scheme = SCHEMES[origin["label_scheme"]]
        versions = {"deskpro_jax": deskpro_jax.__version__}
        versions |= {package: importlib.metadata.version(package) for package in _PACKAGES}
        return {
            **origin,
            "source": "drawn" if self.raw_dir is None else "prepared folders",
            "labels": list(scheme.labels),
            "clothing": list(scheme.clothing),
            "versions": versions,
        }


def checksum(examples: Records | list[Example]) -> str:
    """Returns the SHA-256 of a split's content, whatever the order of its examples."""
    digests = []
    for example in examples:
        digest = hashlib.sha256()
        for value in example:
            content = b"-" if value is None else value if isinstance(value, bytes) else str(value).encode()
            digest.update(len(content).to_bytes(8, "big") + content)
        digests.append(digest.digest())
    return hashlib.sha256(b"".join(sorted(digests))).hexdigest()


def _encoded(example: Example) -> dict[str, Any]:
    """Wraps encoded images in files, which TFDS stores byte for byte."""

    def optional(content: bytes | None) -> list[io.BytesIO]:
        return [] if content is None else [io.BytesIO(content)]

    return {
        **example._asdict(),
        "body": io.BytesIO(example.body),
        "parts": optional(example.parts),
        "face": optional(example.face),
        "restored_face": optional(example.restored_face),
    }


def is_built(name: str, data_dir: str | Path) -> bool:
    """Tells whether a complete dataset is in `data_dir`.

    Raises:
      InputError: If no dataset is called `name`.
    """
    return (dataset_path(name, data_dir) / "dataset_info.json").exists()


def build(
    name: str,
    data_dir: str | Path,
    raw_dir: str | Path | None = None,
    seed: int = 0,
    progress: bool = True,
    workers: int = 0,
) -> Path:
    """Builds a dataset unless it is there.

    Args:
      name: One of `deskpro_jax.data.dataset.NAMES`.
      data_dir: Where TFDS datasets are kept.
      raw_dir: Folder with imgs/, lr_face/, hr_face/ and mask/; None or "" draws a synthetic dataset.
      seed: Seed of a drawn dataset.
      progress: Shows progress bars on a terminal.
      workers: Processes that draw a synthetic dataset; 0 draws in this one.

    Returns:
      The dataset's folder; it appears when it is complete and not before.

    Raises:
      InputError: If the name is unknown, a file is not as it should be, or the dataset is there with another seed.
      MissingInputError: If folders to build from are missing.
    """
    folder = dataset_path(name, data_dir)
    drawn = name.startswith(_SYNTHETIC) and not raw_dir
    builder = CcReid(config=name, data_dir=str(Path(data_dir).expanduser()))
    if is_built(name, data_dir):
        found = builder.info.metadata.get("seed")
        if drawn and found != seed:
            raise InputError(
                f"{folder} was built with seed {found}, data.build_seed asks for {seed}: "
                "set data.data_dir to another folder or delete this one"
            )
        return folder
    builder.raw_dir = Path(raw_dir).expanduser() if raw_dir else None
    builder.seed, builder.workers = seed, workers
    if not drawn:
        naming.check_prepared(builder.raw_dir, name)
    with _bars(progress and sys.stderr.isatty()), contextlib.redirect_stdout(io.StringIO()):
        builder.download_and_prepare(file_format="array_record")
    return folder


@contextlib.contextmanager
def _bars(shown: bool) -> Iterator[None]:
    """Shows or hides the progress bars of TFDS for a while."""
    if shown:
        yield
        return
    tfds.disable_progress_bar()
    try:
        yield
    finally:
        tfds.enable_progress_bar()
