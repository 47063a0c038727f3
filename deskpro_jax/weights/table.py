"""Name tables: which PyTorch tensor is which (slice of a) flax array, and moving values along them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from deskpro_jax.errors import InputError

SHOWN = 20  # tensors that a message lists; of more, `EXAMPLES` a kind
EXAMPLES = 3
COUNTER = "num_batches_tracked"  # of a PyTorch BatchNorm; counts, no weights
# How a PyTorch tensor's axes are ordered for flax.
TRANSPOSES = {
    "same": None,
    "conv": (2, 3, 1, 0),  # OIHW -> HWIO
    "pointwise": (3, 2, 1, 0),  # [O, I, 1, 1] -> [1, 1, I, O], then the two ones go
    "depthwise": (2, 3, 0, 1),  # [C, 1, 3, 3] -> [3, 3, C, 1], then the last one goes
    "linear": (1, 0),
    "nchw": (0, 2, 3, 1),  # NCHW -> NHWC
    "modulated": (0, 3, 4, 2, 1),  # [1, O, I, H, W] -> [1, H, W, I, O], a StyleGAN2's
}


class Misfit(NamedTuple):
    """A tensor that does not fit: of what kind the misfit is ("not in the file"), and what is said of the tensor."""

    kind: str
    text: str


MISSING, LEFT_OVER, OTHER_SHAPE = "not in the file", "that the model does not have", "of another shape"
OTHER_TYPE, NOT_FINITE, CONTRADICTION = "of another type", "with NaN or infinity", "that contradict each other"
NO_PLACE = "without a place in the model"


@dataclass(frozen=True)
class Entry:
    """One PyTorch tensor and its place: `variables[collection][path...][index]`.

    `kind` names the order of its axes, one of `TRANSPOSES`, or is that order: PyTorch's axes as flax has them.
    """

    name: str
    collection: str
    path: tuple[str, ...]
    index: tuple[int, ...] = ()
    kind: str | tuple[int, ...] = "same"

    def under(self, prefix: str, path: tuple[str, ...]) -> Entry:
        """Returns the entry of the same tensor one module further out."""
        return replace(self, name=prefix + self.name, path=(*path, *self.path))


def to_flax(tensor: np.ndarray, kind: str | tuple[int, ...]) -> np.ndarray:
    """Returns a PyTorch tensor with its axes as flax has them."""
    axes = TRANSPOSES[kind] if isinstance(kind, str) else kind
    array = tensor if axes is None else tensor.transpose(axes)
    if kind == "pointwise":
        return array[0, 0]
    return array[..., 0] if kind == "depthwise" else array


def to_torch(array: np.ndarray, kind: str | tuple[int, ...]) -> np.ndarray:
    """Returns a flax array with its axes as PyTorch has them; undoes `to_flax`."""
    if kind == "pointwise":
        array = array[None, None]
    elif kind == "depthwise":
        array = array[..., None]
    axes = TRANSPOSES[kind] if isinstance(kind, str) else kind
    return array if axes is None else array.transpose(np.argsort(axes))


def torch_shape(shape: tuple[int, ...], kind: str | tuple[int, ...]) -> tuple[int, ...]:
    """Returns the shape in PyTorch of a flax array of `shape`."""
    return to_torch(np.broadcast_to(np.float32(0), shape), kind).shape


def norm(name: str, path: tuple[str, ...], index: tuple[int, ...] = (), *, running: bool = True) -> Iterable[Entry]:
    """Yields the entries of a normalisation layer called `name` in PyTorch, at `path` in flax."""
    yield Entry(f"{name}.weight", "params", (*path, "scale"), index)
    yield Entry(f"{name}.bias", "params", (*path, "bias"), index)
    if running:
        yield Entry(f"{name}.running_mean", "batch_stats", (*path, "mean"), index)
        yield Entry(f"{name}.running_var", "batch_stats", (*path, "var"), index)


def load(
    entries: Iterable[Entry],
    tensors: Mapping[str, np.ndarray],
    template: Mapping[str, Any],
    *,
    keep: Collection[str] = (),
    problems: Iterable[Misfit] = (),
    network: str | None = None,
) -> dict[str, Any]:
    """Fills flax variables from PyTorch tensors.

    Args:
        entries: the name table; together they cover `template`.
        tensors: PyTorch name -> array, in PyTorch's axis order.
        template: variables whose shapes are the expected ones (arrays or `jax.ShapeDtypeStruct`).
        keep: names of entries that are not read; `template` holds arrays, whose values stay there.
        problems: misfits that the caller knows of, listed with the others.
        network: what the file looks like ("a ResNet-50"), for the message.

    Returns:
        New variables with the structure of `template`, in the dtype of the tensors.

    Raises:
        InputError: a tensor is missing, has another shape, is not finite, or an array of `template` stays without
            values.
    """
    flat = dict(flatten(template))
    filled: dict[tuple[str, ...], np.ndarray] = {}
    covered: dict[tuple[str, ...], int] = {}
    misfits = list(problems)
    for entry in entries:
        key = (entry.collection, *entry.path)
        if key not in flat:
            misfits.append(Misfit(NO_PLACE, f"{entry.name}: the model has no {'/'.join(key)}"))
            continue
        expected = flat[key].shape[len(entry.index) :]
        if entry.name in keep:
            value = np.asarray(flat[key])[entry.index]
        elif entry.name not in tensors:
            shape = torch_shape(expected, entry.kind)
            misfits.append(Misfit(MISSING, f"{entry.name}: not in the file, the model has {shape}"))
            continue
        else:
            tensor = np.asarray(tensors[entry.name])
            if tensor.shape != torch_shape(expected, entry.kind):
                text = f"{entry.name}: shape {tensor.shape}, the model has {torch_shape(expected, entry.kind)}"
                misfits.append(Misfit(OTHER_SHAPE, f"{text} at {'/'.join(key)}"))
                continue
            if not is_finite(tensor):
                misfits.append(Misfit(NOT_FINITE, f"{entry.name}: holds values that are not finite"))
                continue
            value = to_flax(tensor, entry.kind)
        target = filled.setdefault(key, np.empty(flat[key].shape, value.dtype))
        target[entry.index] = value
        covered[key] = covered.get(key, 0) + value.size
    for key, leaf in flat.items():
        if covered.get(key, 0) != int(np.prod(leaf.shape)) and not misfits:
            misfits.append(Misfit(NO_PLACE, f"{'/'.join(key)}: no tensor of the table fills all of it"))
    if misfits:
        looks = f"The file looks like {network}. " if network else ""
        raise InputError(f"{looks}The weights do not fit the model ({len(misfits)} tensors):{_listed(misfits)}")
    return _unflatten(filled)


def is_finite(tensor: np.ndarray) -> bool:
    """Returns whether a tensor holds no NaN and no infinity; whole numbers never do."""
    return not jnp.issubdtype(tensor.dtype, np.inexact) or bool(np.isfinite(tensor).all())


def as_float32(tensor: np.ndarray) -> np.ndarray:
    """Returns a tensor in float32; a number beyond its range becomes infinite."""
    with np.errstate(over="ignore"):
        return tensor.astype(np.float32)


def other_type(name: str, tensor: np.ndarray) -> Misfit:
    """Returns the misfit of a tensor that holds no floating-point numbers."""
    return Misfit(OTHER_TYPE, f"{name}: type {tensor.dtype}, the model has floating-point numbers")


def left_over(name: str, tensor: np.ndarray) -> Misfit:
    """Returns the misfit of a tensor that has no place in the model."""
    return Misfit(LEFT_OVER, f"{name}: shape {tensor.shape}, the model has no such tensor")


def _listed(misfits: Sequence[Misfit]) -> str:
    """Returns a line for each misfit; of many a few examples of each kind, with their number."""
    if len(misfits) <= SHOWN:
        return "".join(f"\n  {misfit.text}" for misfit in misfits)
    lines = ""
    for kind in dict.fromkeys(misfit.kind for misfit in misfits):
        texts = [misfit.text for misfit in misfits if misfit.kind == kind]
        lines += f"\n  {len(texts)} {kind}:" + "".join(f"\n    {text}" for text in texts[:EXAMPLES])
        if len(texts) > EXAMPLES:
            lines += f"\n    ... and {len(texts) - EXAMPLES} more"
    return lines


def load_whole(
    entries: Iterable[Entry], tensors: Mapping[str, np.ndarray], template: Mapping[str, Any]
) -> dict[str, Any]:
    """Fills flax variables in float32 from all tensors of a file; only counters of its BatchNorms may be left over.

    Args:
        entries: the name table; together they cover `template`.
        tensors: PyTorch name -> array, in PyTorch's axis order.
        template: variables whose shapes are the expected ones.

    Returns:
        New variables with the structure of `template`.

    Raises:
        InputError: a tensor has no place, another shape or type, is not finite, or is missing; lists all of them.
    """
    entries = tuple(entries)
    names = {entry.name for entry in entries}
    used: dict[str, np.ndarray] = {}
    problems = []
    for name, value in tensors.items():
        if name in names:
            used[name] = value
            if not jnp.issubdtype(value.dtype, np.floating):
                problems.append(other_type(name, value))
                continue
            used[name] = as_float32(value)
        elif not name.endswith(f".{COUNTER}") or f"{name.removesuffix(COUNTER)}running_mean" not in names:
            problems.append(left_over(name, value))
    return load(entries, used, template, problems=problems)


def dump(entries: Iterable[Entry], variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Returns flax variables as PyTorch tensors, by name: undoes `load`."""
    tensors = {}
    for entry in entries:
        array: Any = variables[entry.collection]
        for part in entry.path:
            array = array[part]
        tensors[entry.name] = to_torch(np.asarray(array)[entry.index], entry.kind)
    return tensors


def flatten(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], Any]]:
    """Yields path and value of each leaf of nested mappings."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, (*prefix, name))
        else:
            yield (*prefix, name), value


def _unflatten(flat: Mapping[tuple[str, ...], np.ndarray]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        node = tree
        for part in key[:-1]:
            node = node.setdefault(part, {})
        node[key[-1]] = value
    return tree
