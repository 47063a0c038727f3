"""Writes embeddings as Parquet, or as .npy with JSON lines: parts of a folder, and parts joined into one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from deskpro_jax.data.photo_tables import LABELS
from deskpro_jax.embedding.photo_list import Listed
from deskpro_jax.storage.files import atomic_path, write_json
from deskpro_jax.storage.parquet import open_parquet, require_pyarrow

FORMATS = ("parquet", "npy")
STORED = ("float32", "float16")
# In a folder of parts; the underscore keeps it out of what readers of Parquet folders take for a part.
INDEX = "_embeddings.json"
SETTINGS_KEY = "deskpro_jax"  # of the settings in a Parquet file
_NUMBER, _TEXT = "int64", "string"  # types of a column of labels
# Files of earlier versions lack the last column, and those without tracklets the one of tracklets.
COLUMNS = ("image_id", "image", *LABELS, "has_face", "image_sha256")
_OPTIONAL = "tracklet"


class Part(NamedTuple):
    """Embeddings of successive photos.

    Attributes:
        photos: what is known of each.
        has_face: [photos] bool.
        embeddings: [photos, dimension] float32.
        sha256: of the photos' files, None where it is not known.
    """

    photos: Sequence[Listed]
    has_face: np.ndarray
    embeddings: np.ndarray
    sha256: Sequence[str | None] | None = None


def label_types(seen: Mapping[str, bool]) -> dict[str, str]:
    """Returns the type of each column of labels: whole numbers unless one of them was text.

    Args:
        seen: column -> whether any label was text; without an entry for tracklets there is no such column.
    """
    return {name: _TEXT if seen.get(name) else _NUMBER for name in LABELS if name != _OPTIONAL or name in seen}


def _columns_of(settings: Mapping[str, Any]) -> list[str]:
    return [name for name in COLUMNS if name != _OPTIONAL or name in settings["labels"]]


def names_of_part(base: str, form: str) -> tuple[str, ...]:
    """Returns the files that a part called `base` has, the one with the embeddings first."""
    return (f"{base}.parquet",) if form == "parquet" else (f"{base}.npy", f"{base}.jsonl")


def write_part(folder: Path, base: str, form: str, part: Part, settings: Mapping[str, Any]) -> None:
    """Writes a part into a folder; the caller renames its files into place.

    Args:
        folder: where to.
        base: name of the files without suffix.
        form: "parquet" or "npy".
        part: what to write.
        settings: what decides the numbers; `stored` and `labels` (types) decide how they are written.
    """
    names = names_of_part(base, form)
    vectors = np.ascontiguousarray(part.embeddings, settings["stored"])
    columns = _columns(part, settings)
    if form == "parquet":
        pa = require_pyarrow()
        schema = _schema(settings)
        flat = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), settings["dimension"])
        checksums = pa.array([settings["model_checksum"]] * len(vectors), pa.string())
        arrays = [pa.array(values, schema.field(name).type) for name, values in columns.items()] + [checksums, flat]
        with _parquet_writer(folder / names[0], schema) as writer:
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema), row_group_size=max(1, len(vectors)))
        return
    np.save(folder / names[0], vectors)
    with (folder / names[1]).open("w", encoding="utf-8") as lines:
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True)) | {"model_checksum": settings["model_checksum"]}
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")


def _columns(part: Part, settings: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Returns the values of each column, in the order of the file."""
    types = settings["labels"]
    columns: dict[str, list[Any]] = {"image_id": [p.image_id for p in part.photos]}
    columns["image"] = [p.path for p in part.photos]
    for name in types:
        values = [getattr(p, name) for p in part.photos]
        text = types[name] == _TEXT
        columns[name] = [str(v) if text and v is not None else v for v in values]
    columns["has_face"] = [bool(has) for has in part.has_face]
    columns["image_sha256"] = list(part.sha256 or [None] * len(part.photos))
    return {name: columns[name] for name in _columns_of(settings)}


def _schema(settings: Mapping[str, Any]) -> Any:
    pa = require_pyarrow()
    types = {name: pa.string() if kind == _TEXT else pa.int64() for name, kind in settings["labels"].items()}
    vector = pa.list_(pa.float32() if settings["stored"] == "float32" else pa.float16(), settings["dimension"])
    types |= {"image_id": pa.string(), "image": pa.string(), "has_face": pa.bool_(), "image_sha256": pa.string()}
    fields = [pa.field(name, types[name]) for name in _columns_of(settings)]
    fields += [pa.field("model_checksum", pa.string()), pa.field("embedding", vector)]
    return pa.schema(fields, metadata={SETTINGS_KEY: json.dumps(settings)})


def _parquet_writer(path: Path, schema: Any) -> Any:
    # Dictionaries and statistics of the vectors' numbers would cost time and say nothing.
    plain = [name for name in schema.names if name != "embedding"]
    return require_pyarrow().parquet.ParquetWriter(
        path, schema, compression="zstd", use_dictionary=plain, write_statistics=plain
    )


def _completed(table: Any, schema: Any) -> Any:
    """Returns the rows of a part with all columns; parts that an earlier version wrote lack some."""
    pa = require_pyarrow()
    columns = [
        table[field.name] if field.name in table.column_names else pa.nulls(table.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)


def join_parts(parts: Sequence[Path], target: Path, form: str, settings: Mapping[str, Any], scratch: Path) -> None:
    """Joins the parts of a folder into one file (Parquet), or three (`.npy`, `.jsonl`, and `.json` with the settings).

    Args:
        parts: the files with the embeddings, in order.
        target: the file to write, ending as its format.
        form: "parquet" or "npy".
        settings: of the parts.
        scratch: folder on the same file system for what is not whole yet.
    """
    if form == "parquet":
        with atomic_path(target, scratch) as temporary, _parquet_writer(temporary, _schema(settings)) as writer:
            for part in parts:
                with open_parquet(part) as file:
                    for group in range(file.num_row_groups):
                        table = _completed(file.read_row_group(group), _schema(settings))
                        writer.write_table(table, row_group_size=1 << 30)
        return
    arrays = [np.load(part, mmap_mode="r") for part in parts]
    rows = sum(len(array) for array in arrays)
    header = {"descr": np.dtype(settings["stored"]).str, "fortran_order": False, "shape": (rows, settings["dimension"])}
    with atomic_path(target, scratch) as temporary, temporary.open("wb") as joined:
        np.lib.format.write_array_header_1_0(joined, header)
        for part in parts:
            joined.write(np.load(part).tobytes())
    with atomic_path(target.with_suffix(".jsonl"), scratch) as temporary, temporary.open("wb") as joined:
        for part in parts:
            joined.write(part.with_suffix(".jsonl").read_bytes())
    write_json(target.with_suffix(".json"), {"settings": dict(settings)})  # the last: with it the others are whole
