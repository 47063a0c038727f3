"""Inert descriptions of what a PyTorch pickle holds: tensors, their storages, and names of everything else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from deskpro_jax.errors import InputError

MAX_RANK = 32

DTYPES = {
    "Double": np.dtype(np.float64),
    "Float": np.dtype(np.float32),
    "Half": np.dtype(np.float16),
    "BFloat16": np.dtype(jnp.bfloat16),
    "Long": np.dtype(np.int64),
    "Int": np.dtype(np.int32),
    "Short": np.dtype(np.int16),
    "Char": np.dtype(np.int8),
    "Byte": np.dtype(np.uint8),
    "Bool": np.dtype(np.bool_),
}
STORAGES = {f"torch.{prefix}{name}Storage": dtype for name, dtype in DTYPES.items() for prefix in ("", "cuda.")}
_TORCH_DTYPES = ("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8", "bool")
_PYTHON = ("set", "frozenset", "list", "tuple", "dict", "int", "float", "bool", "str", "bytes", "slice")
_PATHS = ("Path", "PurePath", "PosixPath", "PurePosixPath", "WindowsPath")
_LIGHTNING = (
    "utilities.parsing.AttributeDict",
    "callbacks.model_checkpoint.ModelCheckpoint",
    "callbacks.early_stopping.EarlyStopping",
)
# Names whose objects hold settings or scores beside the weights. What a pickle does with them is not done: a
# placeholder stands in their place.
INERT = frozenset(
    [
        *(f"torch.{name}" for name in ("device", "strided", *_TORCH_DTYPES)),
        *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _PYTHON),
        *(f"pathlib.{name}" for name in _PATHS),
        *("collections.defaultdict", "collections.Counter", "argparse.Namespace", "datetime.datetime"),
        *("_codecs.encode", "numpy.dtype", "numpy.ndarray"),
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
        *(f"{package}.{name}" for package in ("pytorch_lightning", "lightning.pytorch") for name in _LIGHTNING),
        *("lightning_fabric.utilities.data.AttributeDict", "lightning.fabric.utilities.data.AttributeDict"),
    ]
)


# Modules of classes that hold a configuration, which training code saves beside the weights.
_CONFIGURATIONS = ("yacs.", "fvcore.", "omegaconf.", "detectron2.config.", "fastreid.config.", "mmengine.config.",
                   "mmcv.", "ml_collections.", "hydra.", "easydict.", "addict.", "config.", "configs.")  # fmt: skip
_CONFIGURATION_CLASSES = ("CfgNode", "Config", "ConfigDict", "EasyDict")


def what_is(full_name: str) -> str:
    """Returns what a file holds whose pickle asks for a name that is not part of tensors, as "holds ..." or "asks ...".

    Args:
        full_name: module and name of a class or function.
    """
    module, _, name = full_name.rpartition(".")
    if f"{module}.".startswith(_CONFIGURATIONS) or name.endswith(_CONFIGURATION_CLASSES):
        return f"holds a configuration ({full_name}) beside the weights"
    if name[:1].isupper() and (module.startswith("torch.nn.") or not module.startswith(("torch.", "numpy."))):
        return f"holds an object of the class {full_name}, as a model that was saved whole"
    return f"asks for {full_name}"


@dataclass(frozen=True, eq=False)
class Name:
    """A class or function that the pickle names; nothing but its name."""

    name: str


@dataclass(frozen=True, eq=False)
class Placeholder:
    """Stands for an object that is not built."""

    name: str


@dataclass(frozen=True, eq=False)
class Storage:
    """Where a tensor's numbers are: an entry of the file, its type, how many."""

    key: str
    dtype: np.dtype
    size: int


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor as described, checked against its storage: offset, shape and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class OrderedMapping(dict[Any, Any]):
    """An OrderedDict of the pickle; its attributes (torch's `_metadata`) are left out."""


def checked_tensor(storage: Storage, offset: Any, shape: Any, strides: Any, source: str) -> Tensor:
    """Returns the description of a tensor that lies within its storage.

    Args:
        storage: what it is a view of.
        offset, shape, strides: as the pickle has them, in elements; of any type.
        source: what messages call the file.

    Raises:
        InputError: they are not sizes, or reach beyond the storage.
    """
    for numbers in (shape, strides):
        if not isinstance(numbers, tuple) or len(numbers) > MAX_RANK or not all(map(_is_count, numbers)):
            raise InputError(f"{source}: a tensor's shape or strides are not up to {MAX_RANK} sizes: not loaded.")
    if len(shape) != len(strides) or not _is_count(offset):
        raise InputError(f"{source}: a tensor's offset or strides do not match its shape {shape}: not loaded.")
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    count = math.prod(shape)
    if count and (last >= storage.size or count > storage.size):
        raise InputError(
            f"{source}: a tensor of shape {shape} at offset {offset} with strides {strides} does not fit its storage"
            f" of {storage.size} numbers: the file is damaged or hostile; fetch it again."
        )
    return Tensor(storage, offset, shape, strides)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**62


def described(value: Any) -> str:
    """Returns what messages call a value of a pickle."""
    return value.name[:200] if isinstance(value, (Name, Placeholder)) else f"a {type(value).__name__}"


def set_items(mapping: dict[Any, Any], items: list[Any]) -> None:
    """Adds keys and values, which alternate in `items`, to a mapping.

    Raises:
        ValueError: there is a key without a value.
    """
    for key, value in zip(items[::2], items[1::2], strict=True):
        # Only plain keys are looked up later; hashing a deeply nested tuple could exhaust the C stack.
        mapping[key if isinstance(key, (str, int, float, bytes, type(None))) else Placeholder("key")] = value
