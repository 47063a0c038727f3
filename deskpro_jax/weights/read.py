"""Reads weights from PyTorch files (zip, and the pickle of 2020 and before) and safetensors; no file can run code."""

from __future__ import annotations

import functools
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors

from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.weights.inert import Storage, Tensor
from deskpro_jax.weights.other_files import AGAIN, describe_content, refuse_unzipped
from deskpro_jax.weights.state_dict import choose_names, find_state_dict
from deskpro_jax.weights.unpickle import unpickle

MAX_FILE = 4 << 30  # bytes; these networks have some 100 MB
MAX_PICKLE = 32 << 20  # bytes; names, shapes and settings of a checkpoint are some 2 MB
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_LEGACY_START = b"\x80\x02\x8a\n" + _LEGACY_MAGIC.to_bytes(10, "little")
_SAFETENSORS_DTYPES = {
    **{name: np.dtype(dtype) for name, dtype in (("F64", "f8"), ("F32", "f4"), ("F16", "f2"), ("BOOL", "?"))},
    **{f"{kind.upper()}{bits}": np.dtype(f"{kind}{bits // 8}") for kind in "iu" for bits in (8, 16, 32, 64)},
    "BF16": np.dtype(jnp.bfloat16),
}


Choose = Callable[[Any], Mapping[Any, Any]]  # from what was unpickled to its state dict


class WeightFile(NamedTuple):
    """The content of a file: tensors by name, its text metadata (safetensors only), and its format."""

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    format: str


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a weights file by name; see `read_file`."""
    return read_file(path).tensors


def read_file(path: str | Path, weights: str | None = None) -> WeightFile:
    """Reads a PyTorch file, plain or wrapped (`state_dict`, `model`, a Lightning checkpoint), or a safetensors file.

    Args:
        path: the file.
        weights: which weights are read of a file that has plain and averaged (EMA) ones, one of `state_dict.CHOICES`;
            None for the plain ones, with a warning that says so.

    Returns:
        Tensors by name, in their own types (bfloat16 too) and axis order; they may be views and read-only.

    Raises:
        MissingInputError: there is no such file.
        InputError: it is not a weights file, is damaged, or asks for anything but tensors.
    """
    path = Path(path)
    if not path.exists():
        raise MissingInputError(f"no file at {path}: correct the path of the weights.")
    if not path.is_file():
        refuse_unzipped(path)
        raise InputError(f"{path} is a folder; expected a PyTorch or safetensors file.")
    if path.stat().st_size > MAX_FILE:
        raise InputError(f"{path} has {path.stat().st_size} bytes; a weights file here has at most {MAX_FILE}.")
    data, source = path.read_bytes(), str(path)
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= MAX_HEADER:  # the length can start as any format
        file = _read_safetensors(data, source)
        return file._replace(tensors=dict(choose_names(file.tensors, source, weights)))
    choose = functools.partial(find_state_dict, source=source, weights=weights)
    if data.startswith(b"PK\x03\x04"):
        return WeightFile(_state_dict(_read_zip(data, source, choose), source), {}, "PyTorch zip")
    if data.startswith(b"\x80"):
        return WeightFile(_state_dict(_read_legacy(data, source, choose), source), {}, "PyTorch legacy pickle")
    raise InputError(f"{source} {describe_content(data)}; expected a PyTorch file (.pth, .pt, .ckpt) or safetensors.")


def _read_safetensors(data: bytes, source: str) -> WeightFile:
    try:
        entries = safetensors.deserialize(data)
    except (safetensors.SafetensorError, ValueError, OverflowError) as error:
        raise InputError(f"{source} is not a complete safetensors file ({error}): {AGAIN}.") from error
    tensors = {}
    for name, entry in entries:
        dtype = _SAFETENSORS_DTYPES.get(entry["dtype"])
        if dtype is None:
            raise InputError(f"{source}: {name} is of type {entry['dtype']}, which no network here uses.")
        little = np.frombuffer(entry["data"], dtype.newbyteorder("<") if dtype.kind in "iuf" else dtype)
        tensors[name] = little.astype(dtype, copy=False).reshape(entry["shape"])
    if not tensors:
        raise InputError(f"{source} holds no tensors.")
    return WeightFile(tensors, _safetensors_metadata(data), "safetensors")


def _safetensors_metadata(data: bytes) -> dict[str, str]:
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])  # deserialize has checked it
    return dict(header.get("__metadata__") or {})


def _read_zip(data: bytes, source: str, choose: Choose) -> Mapping[Any, Any]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        names = _checked_names(archive, len(data), source)
        pickles = [name for name in names if PurePosixPath(name).name == "data.pkl"]
        if len(pickles) != 1:
            raise InputError(f"{source} is a zip archive without data.pkl, so torch.save did not write it.")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in names:
            raise InputError(f"{source} is a TorchScript program: load it with PyTorch and save its state_dict().")
        order = archive.read(f"{root}byteorder").strip() if f"{root}byteorder" in names else b"little"
        if order not in (b"little", b"big"):
            raise InputError(f"{source}: its byte order is {order[:20]!r}; expected little or big.")
        if archive.getinfo(pickles[0]).file_size > MAX_PICKLE:
            raise InputError(f"{source}: its data.pkl is larger than {MAX_PICKLE} bytes: not loaded.")

        def raw(storage: Storage) -> bytes:
            name = f"{root}data/{storage.key}"
            if name not in names:
                raise InputError(f"{source}: it refers to the entry {name[:100]!r}, which is not in it: {AGAIN}.")
            return archive.read(name)

        tree = unpickle(io.BytesIO(archive.read(pickles[0])), source)
        return _read_arrays(choose(tree), raw, ">" if order == b"big" else "<", source)
    except InputError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, LookupError, struct.error) as error:
        raise InputError(f"{source} is a damaged or cut-short zip file ({error}): {AGAIN}.") from error


def _checked_names(archive: zipfile.ZipFile, size: int, source: str) -> set[str]:
    """Returns the names in an archive after checking that reading it is harmless."""
    names: set[str] = set()
    total = 0
    for info in archive.infolist():
        parts = PurePosixPath(info.filename).parts
        if ".." in parts or info.filename.startswith("/") or "\\" in info.filename or "\0" in info.orig_filename:
            raise InputError(f"{source}: the entry {info.filename!r} points outside the file: not loaded.")
        if info.filename in names:
            raise InputError(f"{source}: the entry {info.filename!r} is there twice: not loaded.")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise InputError(
                f"{source}: the entry {info.filename!r} is compressed, which torch.save never does: not loaded."
            )
        if info.flag_bits & 1:
            raise InputError(f"{source}: the entry {info.filename!r} is encrypted: not loaded.")
        names.add(info.filename)
        total += info.file_size
    if total > size:
        raise InputError(f"{source}: its entries claim {total} bytes, the file has {size}: not loaded.")
    return names


def _read_legacy(data: bytes, source: str, choose: Choose) -> Mapping[Any, Any]:
    if not data.startswith(_LEGACY_START):
        raise InputError(f"{source} is a pickle that torch.save did not write: not loaded.")
    stream, used = io.BytesIO(data[:MAX_PICKLE]), {}  # type: io.BytesIO, dict[str, Storage]
    unpickle(stream, source)
    if unpickle(stream, source) != _LEGACY_PROTOCOL:
        raise InputError(f"{source}: expected version {_LEGACY_PROTOCOL} of PyTorch's old format.")
    system = unpickle(stream, source)
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise InputError(f"{source} was written on a big-endian machine, which the old format is not read from.")
    tree, keys = unpickle(stream, source, used), unpickle(stream, source)
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise InputError(f"{source}: its list of storages is damaged: {AGAIN}.")
    position, contents = stream.tell(), {}
    for key in keys:
        if key not in used:
            raise InputError(f"{source}: its storage {key[:40]} belongs to no tensor: {AGAIN}.")
        count = int.from_bytes(data[position : position + 8], "little", signed=True)
        end = position + 8 + count * used[key].dtype.itemsize
        if count < 0 or end > len(data):
            missing = f" (ends {end - len(data)} bytes early)" if count >= 0 else ""
            raise InputError(f"{source} is cut short or damaged{missing}: {AGAIN}.")
        contents[key] = data[position + 8 : end]
        position = end
    if set(used) - set(contents):
        raise InputError(f"{source}: {len(set(used) - set(contents))} storages are missing: {AGAIN}.")
    return _read_arrays(choose(tree), lambda storage: contents[storage.key], "<", source)


def _read_arrays(
    state_dict: Mapping[Any, Any], raw: Callable[[Storage], bytes], order: str, source: str
) -> Mapping[Any, Any]:
    """Returns a state dict with its tensors read as arrays."""
    buffers: dict[str, bytes] = {}

    def array(tensor: Tensor) -> np.ndarray:
        storage = tensor.storage
        size = storage.dtype.itemsize
        if storage.key not in buffers:  # once per storage: any number of tensors may be views of it
            content = raw(storage)
            if len(content) < storage.size * size:
                raise InputError(
                    f"{source}: a storage should have {storage.size * size} bytes and has {len(content)}: {AGAIN}."
                )
            if order == ">":
                content = np.frombuffer(content[: storage.size * size], f"u{size}").byteswap().tobytes()
            buffers[storage.key] = content
        try:
            strides = [step * size for step in tensor.strides]
            return np.ndarray(tensor.shape, storage.dtype, buffers[storage.key], tensor.offset * size, strides)
        except (ValueError, OverflowError, TypeError) as error:  # sizes beyond what an array can have, a 0 among them
            raise InputError(f"{source}: a tensor of shape {tensor.shape} cannot be made ({error}).") from error

    return {name: array(value) for name, value in state_dict.items() if isinstance(value, Tensor)}


def _state_dict(tensors: Mapping[Any, np.ndarray], source: str) -> dict[str, np.ndarray]:
    unnamed = [name for name in tensors if not isinstance(name, str)]
    if unnamed:
        raise InputError(f"{source}: {len(unnamed)} of its tensors have no name; expected a state dict.")
    return dict(tensors)
