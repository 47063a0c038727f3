"""Reads weights from PyTorch files (zip, and the pickle of 2020 and before) and safetensors; no file can run code."""

from __future__ import annotations

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
from deskpro_jax.weights.unpickle import unpickle

MAX_FILE = 4 << 30  # bytes; these networks have some 100 MB
MAX_PICKLE = 32 << 20  # bytes; names, shapes and settings of a checkpoint are some 2 MB
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format
MAX_DEPTH = 4  # of wrappers around a state dict
# Under which names checkpoints keep their state dict, in order of preference.
WRAPPERS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "params", "weights")

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_LEGACY_START = b"\x80\x02\x8a\n" + _LEGACY_MAGIC.to_bytes(10, "little")
_SAFETENSORS_DTYPES = {
    **{name: np.dtype(dtype) for name, dtype in (("F64", "f8"), ("F32", "f4"), ("F16", "f2"), ("BOOL", "?"))},
    **{f"{kind.upper()}{bits}": np.dtype(f"{kind}{bits // 8}") for kind in "iu" for bits in (8, 16, 32, 64)},
    "BF16": np.dtype(jnp.bfloat16),
}
_AGAIN = "fetch the file again"


class WeightFile(NamedTuple):
    """The content of a file: tensors by name, its text metadata (safetensors only), and its format."""

    tensors: dict[str, np.ndarray]
    metadata: dict[str, str]
    format: str


def read_tensors(path: str | Path) -> dict[str, np.ndarray]:
    """Returns the tensors of a weights file by name; see `read_file`."""
    return read_file(path).tensors


def read_file(path: str | Path) -> WeightFile:
    """Reads a PyTorch file, plain or wrapped (`state_dict`, `model`, a Lightning checkpoint), or a safetensors file.

    Args:
        path: the file.

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
        raise InputError(f"{path} is a folder; expected a PyTorch or safetensors file.")
    if path.stat().st_size > MAX_FILE:
        raise InputError(f"{path} has {path.stat().st_size} bytes; a weights file here has at most {MAX_FILE}.")
    data, source = path.read_bytes(), str(path)
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= MAX_HEADER:  # the length can start as any format
        return _read_safetensors(data, source)
    if data.startswith(b"PK\x03\x04"):
        return WeightFile(_state_dict(_read_zip(data, source), source), {}, "PyTorch zip")
    if data.startswith(b"\x80"):
        return WeightFile(_state_dict(_read_legacy(data, source), source), {}, "PyTorch legacy pickle")
    raise InputError(f"{source} {_describe(data)}; expected a PyTorch file (.pth, .pt, .ckpt) or safetensors.")


def _describe(data: bytes) -> str:
    head = data[:1024].lstrip().lower()
    if not data:
        return f"is empty: {_AGAIN}"
    if head.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "is a web page, not weights (a download that needed a login or a confirmation?): fetch the file itself"
    if head.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the weights: run `git lfs pull` where it came from"
    if data.startswith((b"\x1f\x8b", b"7z\xbc\xaf", b"Rar!", b"BZh")):
        return "is a compressed archive: unpack it first"
    if not data.strip(b"\0"):
        return f"holds nothing but zeros, as an unfinished download does: {_AGAIN}"
    return f"starts with {data[:8]!r}, which no weights file does"


def _read_safetensors(data: bytes, source: str) -> WeightFile:
    try:
        entries = safetensors.deserialize(data)
    except (safetensors.SafetensorError, ValueError, OverflowError) as error:
        raise InputError(f"{source} is not a complete safetensors file ({error}): {_AGAIN}.") from error
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


def _read_zip(data: bytes, source: str) -> Any:
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
                raise InputError(f"{source}: it refers to the entry {name[:100]!r}, which is not in it: {_AGAIN}.")
            return archive.read(name)

        tree = unpickle(io.BytesIO(archive.read(pickles[0])), source)
        return _read_arrays(tree, raw, ">" if order == b"big" else "<", source)
    except InputError:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, RuntimeError, ValueError, LookupError, struct.error) as error:
        raise InputError(f"{source} is a damaged or cut-short zip file ({error}): {_AGAIN}.") from error


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


def _read_legacy(data: bytes, source: str) -> Any:
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
        raise InputError(f"{source}: its list of storages is damaged: {_AGAIN}.")
    position, contents = stream.tell(), {}
    for key in keys:
        if key not in used:
            raise InputError(f"{source}: its storage {key[:40]} belongs to no tensor: {_AGAIN}.")
        count = int.from_bytes(data[position : position + 8], "little", signed=True)
        end = position + 8 + count * used[key].dtype.itemsize
        if count < 0 or end > len(data):
            missing = f" (ends {end - len(data)} bytes early)" if count >= 0 else ""
            raise InputError(f"{source} is cut short or damaged{missing}: {_AGAIN}.")
        contents[key] = data[position + 8 : end]
        position = end
    if set(used) - set(contents):
        raise InputError(f"{source}: {len(set(used) - set(contents))} storages are missing: {_AGAIN}.")
    return _read_arrays(tree, lambda storage: contents[storage.key], "<", source)


def _read_arrays(tree: Any, raw: Callable[[Storage], bytes], order: str, source: str) -> Mapping[Any, Any]:
    """Returns the state dict of a tree, its tensors read as arrays."""
    buffers: dict[str, bytes] = {}

    def array(tensor: Tensor) -> np.ndarray:
        storage = tensor.storage
        size = storage.dtype.itemsize
        if storage.key not in buffers:  # once per storage: any number of tensors may be views of it
            content = raw(storage)
            if len(content) < storage.size * size:
                raise InputError(
                    f"{source}: a storage should have {storage.size * size} bytes and has {len(content)}: {_AGAIN}."
                )
            if order == ">":
                content = np.frombuffer(content[: storage.size * size], f"u{size}").byteswap().tobytes()
            buffers[storage.key] = content
        try:
            strides = [step * size for step in tensor.strides]
            return np.ndarray(tensor.shape, storage.dtype, buffers[storage.key], tensor.offset * size, strides)
        except (ValueError, OverflowError, TypeError) as error:  # sizes beyond what an array can have, a 0 among them
            raise InputError(f"{source}: a tensor of shape {tensor.shape} cannot be made ({error}).") from error

    state_dict = _find_state_dict(tree, source)
    return {name: array(value) for name, value in state_dict.items() if isinstance(value, Tensor)}


def _find_state_dict(tree: Any, source: str, depth: int = 0) -> Mapping[Any, Any]:
    if isinstance(tree, Tensor):
        raise InputError(f"{source} holds one tensor without a name; expected a state dict.")
    if not isinstance(tree, dict):
        raise InputError(f"{source} holds a {type(tree).__name__}; expected a state dict of tensors by name.")
    known: dict[tuple[int, int], bool] = {}
    inner = {name: value for name, value in tree.items() if isinstance(value, dict) and _holds_tensors(value, known)}
    wrapper = next((name for name in WRAPPERS if name in inner), None)
    if wrapper is None and not _own_tensors(tree) and len(inner) == 1:
        wrapper = next(iter(inner))
    if wrapper is not None and depth < MAX_DEPTH:
        return _find_state_dict(inner[wrapper], source, depth + 1)
    if _own_tensors(tree):
        return tree
    names = ", ".join(repr(name)[:40] for name in list(tree)[:8]) or "nothing"
    raise InputError(
        f"{source}: no state dict found; it holds {names}. Expected tensors by name, or one of {WRAPPERS}."
    )


def _own_tensors(tree: dict[Any, Any]) -> bool:
    return any(isinstance(value, Tensor) for value in tree.values())


def _holds_tensors(tree: dict[Any, Any], known: dict[tuple[int, int], bool], depth: int = 0) -> bool:
    # Each mapping is searched once per depth: a small pickle can hold the same one a million times.
    key = id(tree), depth
    if key not in known:
        known[key] = _own_tensors(tree) or (
            depth < MAX_DEPTH
            and any(isinstance(value, dict) and _holds_tensors(value, known, depth + 1) for value in tree.values())
        )
    return known[key]


def _state_dict(tensors: Mapping[Any, np.ndarray], source: str) -> dict[str, np.ndarray]:
    unnamed = [name for name in tensors if not isinstance(name, str)]
    if unnamed:
        raise InputError(f"{source}: {len(unnamed)} of its tensors have no name; expected a state dict.")
    return dict(tensors)
