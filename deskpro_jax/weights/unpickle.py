"""Reads the pickles inside PyTorch files without running them: nothing in them is imported or called.

The opcodes drive a small stack machine whose values are inert: names stay names, the few constructors of tensors are
written out below, every other name is refused. The standard library's `pickle.Unpickler` does not do, even with a
`find_class` that returns inert classes: it hashes keys (200,000 nested tuples overflow the C stack, which ends the
process), and 9 bytes that name memo entry 2**28 make it allocate 4 GB.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO

from deskpro_jax.errors import InputError
from deskpro_jax.weights import inert
from deskpro_jax.weights.inert import INERT, STORAGES, Name, OrderedMapping, Placeholder, Storage, Tensor, described

_MAX_PAIRS = 1_000_000  # entries copied out of lists of pairs; a few bytes could ask for the same list again and again

_MARK = Name("mark")
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Placeholder("set"),
    "MARK": lambda: _MARK,
}  # fmt: skip
_VALUES = frozenset(
    [
        *("INT", "LONG", "LONG1", "LONG4", "BININT", "BININT1", "BININT2", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    ]
)


def unpickle(stream: BinaryIO, source: str, storages: dict[str, Storage] | None = None) -> Any:
    """Reads one pickle, up to and with its STOP.

    Args:
        stream: bytes, positioned at the pickle's start; left right behind its end.
        source: the name of the file in messages.
        storages: gets every storage that the pickle refers to, by its key.

    Returns:
        Numbers, text, lists, tuples and mappings as such; `Tensor`, `Storage`, `Name` and `Placeholder` for the rest.

    Raises:
        InputError: the pickle names or calls anything but the constructors of tensors, or is damaged.
    """
    machine = _Machine(source, {} if storages is None else storages)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except InputError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"{source}: its pickle is damaged ({type(error).__name__}: {str(error)[:100]}): fetch the file again."
        ) from error
    raise InputError(f"{source}: its pickle ends early: fetch the file again.")


class _Machine:
    """The stack and memo of one pickle."""

    def __init__(self, source: str, storages: dict[str, Storage]):
        self.source, self.storages = source, storages
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.pairs = 0

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _VALUES:
            self.stack.append(argument)
        else:
            method = getattr(self, f"_op_{opcode.lower()}", None)
            if method is None:
                raise InputError(f"{self.source}: the pickle's {opcode} is not part of saving tensors: not loaded.")
            method(argument)

    def _refuse(self, what: str) -> InputError:
        return InputError(
            f"{self.source}: the pickle {what}, which is not part of rebuilding tensors; it is not loaded, since such"
            " a file can run code. If you trust its source, load it with PyTorch and save only model.state_dict()."
        )

    def _pop_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise ValueError("no mark")

    # Nothing to do: the protocol number, frames, and what follows from them.
    def _op_proto(self, argument: Any) -> None: ...

    def _op_frame(self, argument: Any) -> None: ...

    def _op_pop(self, argument: Any) -> None:
        self.stack.pop()

    def _op_pop_mark(self, argument: Any) -> None:
        self._pop_mark()

    def _op_dup(self, argument: Any) -> None:
        self.stack.append(self.stack[-1])

    def _op_put(self, argument: Any) -> None:
        self.memo[argument] = self.stack[-1]

    _op_binput = _op_long_binput = _op_put

    def _op_memoize(self, argument: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def _op_get(self, argument: Any) -> None:
        self.stack.append(self.memo[argument])

    _op_binget = _op_long_binget = _op_get

    def _op_tuple(self, argument: Any) -> None:
        self.stack.append(tuple(self._pop_mark()))

    def _op_list(self, argument: Any) -> None:
        self.stack.append(self._pop_mark())

    def _op_tuple1(self, argument: Any) -> None:
        self.stack[-1:] = [tuple(self.stack[-1:])]

    def _op_tuple2(self, argument: Any) -> None:
        self.stack[-2:] = [(self.stack[-2], self.stack[-1])]

    def _op_tuple3(self, argument: Any) -> None:
        self.stack[-3:] = [(self.stack[-3], self.stack[-2], self.stack[-1])]

    def _op_dict(self, argument: Any) -> None:
        items = self._pop_mark()
        self.stack.append({})
        self._assign(items)

    def _op_frozenset(self, argument: Any) -> None:
        self._pop_mark()
        self.stack.append(Placeholder("frozenset"))

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Placeholder):
            raise self._refuse(f"appends to {described(target)}")

    def _op_append(self, argument: Any) -> None:
        self._extend([self.stack.pop()])

    def _op_appends(self, argument: Any) -> None:
        self._extend(self._pop_mark())

    _op_additems = _op_appends

    def _op_setitem(self, argument: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._assign([key, value])

    def _op_setitems(self, argument: Any) -> None:
        self._assign(self._pop_mark())

    def _assign(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            inert.set_items(target, items)
        elif not isinstance(target, Placeholder):
            raise self._refuse(f"sets items of {described(target)}")

    def _op_global(self, argument: Any) -> None:
        self._name(*argument.split(" ", 1))

    def _op_stack_global(self, argument: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise self._refuse("names a global by something other than text")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in INERT and full not in STORAGES and full not in _CONSTRUCTORS:
            raise self._refuse(inert.what_is(full[:200]))
        self.stack.append(Name(full))

    def _op_reduce(self, argument: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self._call(function, arguments)

    _op_newobj = _op_reduce

    def _op_newobj_ex(self, argument: Any) -> None:
        keywords, arguments, function = self.stack.pop(), self.stack.pop(), self.stack.pop()
        if keywords != {}:
            raise self._refuse(f"calls {described(function)} with keywords")
        self._call(function, arguments)

    def _op_obj(self, argument: Any) -> None:
        function, *arguments = self._pop_mark()
        self._call(function, tuple(arguments))

    def _op_inst(self, argument: Any) -> None:
        arguments = tuple(self._pop_mark())
        self._name(*argument.split(" ", 1))
        self._call(self.stack.pop(), arguments)

    def _call(self, function: Any, arguments: Any) -> None:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise self._refuse(f"calls {described(function)}")
        if function.name in INERT:
            self.stack.append(Placeholder(function.name))
        elif function.name in _CONSTRUCTORS:
            try:
                self.stack.append(_CONSTRUCTORS[function.name](self, *arguments))
            except TypeError as error:
                raise self._refuse(f"calls {function.name} with other arguments than torch does") from error
        else:
            raise self._refuse(f"calls {function.name}")

    def _op_build(self, argument: Any) -> None:
        self.stack.pop()
        if not isinstance(self.stack[-1], (OrderedMapping, Placeholder)):
            raise self._refuse(f"sets attributes of {described(self.stack[-1])}")

    def _op_binpersid(self, argument: Any) -> None:
        reference = self.stack.pop()
        match reference:
            case ("storage", Name(kind), str(key), str(), int(size), *view) if view in ([], [None]):
                if kind in STORAGES and not isinstance(size, bool) and size >= 0:
                    storage = self.storages.setdefault(key, Storage(key, STORAGES[kind], size))
                    if (storage.dtype, storage.size) != (STORAGES[kind], size):
                        raise self._refuse("gives one storage two types or sizes")
                    self.stack.append(storage)
                    return
        raise self._refuse("refers to something outside it that is not a plain storage")

    def ordered(self, pairs: Any = ()) -> OrderedMapping:
        mapping = OrderedMapping()
        if not isinstance(pairs, (list, tuple)) or not all(isinstance(p, (list, tuple)) and len(p) == 2 for p in pairs):
            raise self._refuse("builds an OrderedDict from something other than pairs")
        self.pairs += len(pairs)
        if self.pairs > _MAX_PAIRS:
            raise self._refuse(f"copies more than {_MAX_PAIRS} entries")
        for key, value in pairs:
            inert.set_items(mapping, [key, value])
        return mapping

    def tensor(
        self,
        storage: Any,
        offset: Any,
        shape: Any,
        strides: Any,
        grad: Any = False,
        hooks: Any = None,
        meta: Any = None,
    ) -> Tensor:
        if not isinstance(storage, Storage):
            raise self._refuse(f"builds a tensor on {described(storage)}")
        return inert.checked_tensor(storage, offset, shape, strides, self.source)

    def parameter(self, data: Any, grad: Any = False, hooks: Any = None) -> Tensor:
        if not isinstance(data, Tensor):
            raise self._refuse(f"builds a parameter of {described(data)}")
        return data

    def size(self, sizes: Any = ()) -> tuple[Any, ...]:
        return sizes if isinstance(sizes, tuple) else ()


_CONSTRUCTORS: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": _Machine.ordered,
    "torch._utils._rebuild_tensor": _Machine.tensor,
    "torch._utils._rebuild_tensor_v2": _Machine.tensor,
    "torch._utils._rebuild_parameter": _Machine.parameter,
    "torch.Size": _Machine.size,
}
