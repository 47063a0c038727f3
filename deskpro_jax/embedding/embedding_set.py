"""Reads embeddings from files, block by block, whatever form they are in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deskpro_jax.data.photo_tables import LABELS, Label, check_columns, label
from deskpro_jax.embedding.files import COLUMNS, INDEX, SETTINGS_KEY
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.evaluation.similarity import MISSING_FACE, Similarity, equal_parts
from deskpro_jax.storage.files import require_json
from deskpro_jax.storage.parquet import open_parquet

PARTS_OF_A_STREAM = 7  # as deskpro_jax.models.lmbn.PARTS; searching does not load JAX
_MAY_BE_MISSING = ("face",)


def read_settings(path: Path) -> dict[str, Any] | None:
    """Returns the settings of finished embeddings, None where there are none (yet).

    Args:
        path: a file or a folder of parts.

    Raises:
        InputError: what is there was not written by this package.
    """
    if path.is_dir():
        return _index(path)["settings"] if (path / INDEX).exists() else None
    if not path.exists():
        return None
    if path.suffix == ".npy":
        beside = path.with_suffix(".json")
        return _load_json(beside)["settings"] if beside.exists() else None
    with open_parquet(path) as file:
        return _parquet_settings(file)


def _parquet_settings(file: Any) -> dict[str, Any] | None:
    text = (file.schema_arrow.metadata or {}).get(SETTINGS_KEY.encode())
    return None if text is None else dict(json.loads(text))


def _index(folder: Path) -> dict[str, Any]:
    return _load_json(folder / INDEX)


def _load_json(path: Path) -> dict[str, Any]:
    content = require_json(path, "write the embeddings again")
    if not isinstance(content.get("settings"), dict):
        raise InputError(f"{path} does not describe embeddings (it has no settings): write them again.")
    return content


class EmbeddingSet:
    """Embeddings on disk, read block by block.

    Attributes:
        path: the file or folder.
        settings: what decided the numbers.
        files: the files with the embeddings, in order.
        similarity: how two of them are compared: as the networks were evaluated, photos without a face by the body
            where that is not known.
        dimension: length of an embedding.
        streams: the streams of the networks, in the order of the columns.
    """

    def __init__(self, path: str | Path, *, streams: Sequence[str] | None = None):
        """Opens embeddings; nothing but their settings is read.

        Args:
            path: a Parquet or .npy file or a folder, as `deskpro_jax.embed` writes them.
            streams: "face" and/or "body", for a Parquet file that another program wrote again and that lost its
                settings thereby.

        Raises:
            MissingInputError: there is nothing at `path`.
            InputError: it holds no embeddings, or they are not finished.
        """
        self.path = Path(path).expanduser()
        if not self.path.exists():
            raise MissingInputError(f"no embeddings at {self.path}: make them with python -m deskpro_jax.embed.")
        settings = self._settings(streams)
        self.settings = settings
        self.dimension = int(settings["dimension"])
        self.streams: tuple[str, ...] = tuple(settings["streams"])
        self.similarity = _similarity(settings)
        if self.path.is_dir():
            shards = _index(self.path)["shards"]
            self.files = [self.path / shard["file"] for shard in shards]
            if missing := [file for file in self.files if not file.is_file()]:
                raise MissingInputError(f"{self.path} lacks {missing[0].name}: run the command that wrote it again.")
        else:
            self.files = [self.path]

    def _settings(self, streams: Sequence[str] | None) -> dict[str, Any]:
        settings = read_settings(self.path)
        if settings is not None:
            return settings
        if self.path.is_dir():
            raise InputError(
                f"{self.path} has no {INDEX}: not a folder of embeddings, or not finished; run embed again."
            )
        if self.path.suffix == ".npy":
            raise MissingInputError(f"{self.path} has no {self.path.with_suffix('.json').name} beside it: put it back.")
        with open_parquet(self.path) as file:
            if not {"embedding", "has_face"} <= set(file.schema_arrow.names):
                raise InputError(f"{self.path} has columns {', '.join(file.schema_arrow.names)}; expected embeddings.")
            if streams is None:
                raise InputError(
                    f"{self.path} does not say which streams its embeddings have, as when another program wrote it: "
                    "give --streams (face,body or one of them)."
                )
            row = next(file.iter_batches(batch_size=1, columns=["embedding"]), None)
            dimension = 0 if row is None or not len(row) else len(row.column(0)[0])
            checksum = _first(file, "model_checksum") if "model_checksum" in file.schema_arrow.names else None
        return {
            "parts": PARTS_OF_A_STREAM * len(streams),
            "streams": list(streams),
            "dimension": dimension,
            "model_checksum": checksum,
        }

    def columns(self) -> dict[str, list[Any]]:
        """Returns the labels of all photos, by column: image_id, image, identity, camera, clothes, has_face.

        Raises:
            InputError: a column of labels has another name, or holds something else than numbers and text.
        """
        columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        for file in self.files:
            if file.suffix == ".npy":
                for row in _json_lines(file.with_suffix(".jsonl")):
                    for name in COLUMNS:
                        columns[name].append(row.get(name))
                continue
            with open_parquet(file) as opened:
                check_columns(str(file), opened.schema_arrow.names, (), COLUMNS)
                names = [name for name in COLUMNS if name in opened.schema_arrow.names]
                table = opened.read(columns=names)
                for name in COLUMNS:
                    columns[name] += table[name].to_pylist() if name in names else [None] * table.num_rows
        return columns | {name: self._labels(name, columns[name]) for name in LABELS}

    def _labels(self, name: str, values: Sequence[Any]) -> list[Label]:
        try:
            return [label(value) for value in values]
        except ValueError as error:
            raise InputError(f"{self.path}: column {name} holds {error}.") from error

    def blocks(self) -> Iterator[np.ndarray]:
        """Yields the embeddings in order, as [images, dimension] float32 of some thousand rows.

        Raises:
            InputError: a file is damaged, or an embedding is not finite or of another length.
        """
        for file in self.files:
            for block in self._blocks_of(file):
                if not np.isfinite(block).all():
                    raise InputError(f"{file}: an embedding has a number that is not finite: embed its photo again.")
                yield block

    def _blocks_of(self, file: Path) -> Iterator[np.ndarray]:
        rows = max(1, (1 << 26) // (4 * max(self.dimension, 1)))  # 64 MiB
        if file.suffix == ".npy":
            array = _load_npy(file, self.dimension)
            for start in range(0, len(array), rows):
                yield np.array(array[start : start + rows], np.float32)
            return
        with open_parquet(file) as opened:
            for batch in opened.iter_batches(batch_size=rows, columns=["embedding"]):
                flat = batch.column(0).flatten()
                if flat.null_count or len(flat) != len(batch) * self.dimension:
                    raise InputError(f"{file}: its embeddings are not all of length {self.dimension}.")
                yield flat.to_numpy(zero_copy_only=False).astype(np.float32, copy=False).reshape(-1, self.dimension)

    def all(self) -> np.ndarray:
        """Returns all embeddings at once, [images, dimension] float32."""
        return np.concatenate([np.zeros((0, self.dimension), np.float32), *self.blocks()])


def _similarity(settings: dict[str, Any]) -> Similarity:
    streams = settings["streams"]
    parts = dict.fromkeys(streams, int(settings["parts"]) // len(streams))
    rule = str(settings.get("missing_face", MISSING_FACE[0]))
    return equal_parts(int(settings["dimension"]), parts, _MAY_BE_MISSING, rule)


def _first(file: Any, column: str) -> Any:
    batch = next(file.iter_batches(batch_size=1, columns=[column]), None)
    return None if batch is None or not len(batch) else batch.column(0)[0].as_py()


def _load_npy(file: Path, dimension: int) -> np.ndarray:
    try:
        array = np.load(file, mmap_mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise InputError(f"{file} is not a complete .npy file ({error}): write it again.") from error
    if array.ndim != 2 or array.shape[1] != dimension or array.dtype.kind != "f":
        raise InputError(f"{file} holds {array.shape} of {array.dtype}; expected [images, {dimension}] of floats.")
    return array


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)
    except FileNotFoundError as error:
        raise MissingInputError(f"{path} is missing: put it back, or write the embeddings again.") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}): write the embeddings again.") from error
