"""Reads embeddings from files, block by block, whatever form they are in."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deskpro_jax.data.photo_tables import LABELS, Label, check_columns, label
from deskpro_jax.embedding.files import COLUMNS, INDEX, SETTINGS_KEY
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.evaluation.similarity import MISSING_FACE, Similarity, StreamParts, equal_parts
from deskpro_jax.storage.files import require_json
from deskpro_jax.storage.parquet import open_parquet

PARTS_OF_A_STREAM = 7  # of a table without settings, unless --streams says how many: those of LightMBN
_MAY_BE_MISSING = ("face",)  # where the settings do not say


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
            streams: names of the streams in order, each with its parts as "body:6x2048" unless it has seven of one
                length, for a Parquet file that another program wrote again and that lost its settings thereby.

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
                    "give --streams (as face,body, or with parts and their lengths: face:7x512,body:6x2048)."
                )
            row = next(file.iter_batches(batch_size=1, columns=["embedding"]), None)
            dimension = 0 if row is None or not len(row) else len(row.column(0)[0])
            checksum = _first(file, "model_checksum") if "model_checksum" in file.schema_arrow.names else None
        return _read_streams(streams, dimension) | {"dimension": dimension, "model_checksum": checksum}

    def columns(self) -> dict[str, list[Any]]:
        """Returns the labels of all photos, by column: image_id, image, identity, camera, clothes, has_face, ...

        There is a column of tracklets where photos have any.

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
        columns |= {name: self._labels(name, columns[name]) for name in LABELS}
        if all(tracklet is None for tracklet in columns["tracklet"]):
            del columns["tracklet"]
        return columns

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


def settings_of(similarity: Similarity) -> dict[str, Any]:
    """Returns the settings that say how embeddings are compared, as JSON values.

    Streams are described one by one only where they are not alike, so that earlier versions read all other files.
    """
    names, settings = similarity.names, {"streams": list(similarity.names), "parts": similarity.parts}
    dims = {stream.dim for stream in similarity.streams}
    parts = dict.fromkeys(names, similarity.parts // len(names))
    if len(dims) == 1 and equal_parts(similarity.total_dim, parts, _MAY_BE_MISSING) == dataclasses.replace(
        similarity, missing_face=MISSING_FACE[0]
    ):
        return settings
    described = {stream.name: dataclasses.asdict(stream) for stream in similarity.streams}
    for stream in described.values():
        stream["weights"] = list(stream["weights"])
        del stream["name"]
    return settings | {"stream_parts": described}


def _similarity(settings: dict[str, Any]) -> Similarity:
    rule = str(settings.get("missing_face", MISSING_FACE[0]))
    streams = settings["streams"]
    if described := settings.get("stream_parts"):
        parts = {name: described[name] | {"weights": tuple(described[name]["weights"])} for name in streams}
        return Similarity(tuple(StreamParts(name, **values) for name, values in parts.items()), rule)
    counts = dict.fromkeys(streams, int(settings["parts"]) // len(streams))
    return equal_parts(int(settings["dimension"]), counts, _MAY_BE_MISSING, rule)


def _read_streams(streams: Sequence[str], dimension: int) -> dict[str, Any]:
    """Returns the settings of streams that a user named, as "face,body" or "face:7x512,body:6x2048"."""
    if not any(":" in stream for stream in streams):
        return {"streams": list(streams), "parts": PARTS_OF_A_STREAM * len(streams)}
    described: dict[str, Any] = {}
    for stream in streams:
        match = re.fullmatch(r"([^:]+):([1-9]\d*)x([1-9]\d*)", stream)
        if match is None:
            raise InputError(f"--streams has {stream!r}; expected NAME:PARTSxLENGTH for each, as body:6x2048.")
        name, count, dim = match[1], int(match[2]), int(match[3])
        described[name] = {"count": count, "dim": dim, "may_be_missing": name in _MAY_BE_MISSING, "weights": []}
    total = sum(stream["count"] * stream["dim"] for stream in described.values())
    if total != dimension:
        raise InputError(f"--streams {','.join(streams)} is of embeddings of length {total}; these have {dimension}.")
    parts = sum(stream["count"] for stream in described.values())
    return {"streams": list(described), "parts": parts, "stream_parts": described}


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
