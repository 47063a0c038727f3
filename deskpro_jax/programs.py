"""Keeps compiled training steps, so that a command that starts again need not trace them anew.

jax's persistent cache spares compiling, but looks a program up by what tracing and lowering it give: 8 of the 13 s
until the student's step of the paper's size is ready. Here a program is found by what it is traced from: the source
files, the configuration, the arguments' shapes and places, versions, devices and settings.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
import platform
import site
import sys
import sysconfig
import zlib
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import flax
import jax
import jax.monitoring
import optax
from absl import logging
from jax.experimental import serialize_executable
from jax.sharding import Mesh

import deskpro_jax
from deskpro_jax import integrity, working_memory
from deskpro_jax.compilation import compile_now
from deskpro_jax.files import write_whole

_TRACED = (jax, flax, optax)  # installed packages whose code decides the program
_VERSIONS = ("jax", "jaxlib", "flax", "optax", "numpy", "ml_collections")
_VARIABLES = ("XLA_", "JAX_", "LIBTPU_", "TPU_", "CUDA_", "NVIDIA_")  # how names of theirs begin
_ALLOCATION = "XLA_PYTHON_CLIENT_"  # variables that decide where memory comes from, and no program
_APART = ("data_prep",)  # makes datasets; loaded by the start that builds one and not by the next
_CACHE_HIT = "/jax/compilation_cache/cache_hits"
_CHECKSUM = hashlib.sha256().digest_size

_kept_for: tuple[Path, ...] | None = None  # files beside the source that decide what is traced; None: nothing is kept


@contextlib.contextmanager
def kept(files: Sequence[Path] = ()) -> Iterator[None]:
    """Lets `ready_program` keep programs, and find those of earlier commands.

    To be entered by commands alone: there, files decide what is traced. A script or a notebook may have replaced any
    function, which no file tells.

    Args:
        files: Python files that were run without being imported: that of the configuration.
    """
    global _kept_for  # whoever enters it is far from the loop that compiles
    before, _kept_for = _kept_for, tuple(files)
    try:
        yield
    finally:
        _kept_for = before


def listing(module: ModuleType) -> str:
    """Returns a checksum of names, sizes and times of the files of a module's package, or of its own file.

    It tells that an installed package is another one, or was edited, without reading it all.
    """
    whole = sys.modules.get(module.__name__.partition(".")[0], module)
    file = Path(getattr(whole, "__file__", None) or str(module.__file__))  # a namespace package has none
    found = []
    for path in sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file]:
        status = path.stat()
        found.append(f"{path.relative_to(file.parent)} {status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(found).encode()).hexdigest()


def ready_program(jitted: Any, mesh: Mesh, arguments: Sequence[Any], about: Mapping[str, Any]) -> jax.stages.Compiled:
    """Returns the program of a jitted function: kept from before, from jax's persistent cache, or compiled.

    Args:
        jitted: what `jax.jit` returned.
        mesh: the devices that it runs on.
        arguments: as it will be called with, all of them arrays.
        about: what it was made from, besides source files: JSON values, or objects whose `repr` tells all.

    Returns:
        The program, for arguments of these shapes, types and places alone.
    """
    place = _place(mesh, arguments, about)
    if place is None:
        return compile_now(jitted, *arguments)
    program = _read(place, mesh, arguments)
    if program is None:
        with _programs_read() as read:
            program = compile_now(jitted, *arguments)
        if not read:  # one that was read itself lacks functions when it is written again (XLA on CPUs)
            _keep(place, program)
    return program


@contextlib.contextmanager
def _programs_read() -> Iterator[list[str]]:
    """Yields a list that gets an entry for each program that jax reads from its persistent cache."""
    found: list[str] = []

    def notice(event: str, **_: Any) -> None:
        if event == _CACHE_HIT:
            found.append(event)

    jax.monitoring.register_event_listener(notice)
    try:
        yield found
    finally:
        jax.monitoring.unregister_event_listener(notice)


def _place(mesh: Mesh, arguments: Sequence[Any], about: Mapping[str, Any]) -> Path | None:
    """Returns the file of the program; None where programs are not kept."""
    settings = jax.config.values
    folder = settings["jax_compilation_cache_dir"] if settings["jax_enable_compilation_cache"] else None
    if _kept_for is None or not folder or "://" in folder or jax.process_count() > 1:  # "://": a bucket
        return None
    decided = {
        "about": about,
        "arguments": _signature(arguments),
        "sources": _sources(_kept_for),
        "packages": [listing(package) for package in _TRACED],
        "versions": [platform.python_version(), *(f"{name} {metadata.version(name)}" for name in _VERSIONS)],
        "devices": _devices(mesh),
        "settings": {name: repr(value) for name, value in settings.items() if "_cache" not in name},
        "environment": {
            name: value
            for name, value in os.environ.items()
            if name.startswith(_VARIABLES) and not name.startswith(_ALLOCATION) and "_CACHE" not in name
        },
    }
    text = json.dumps(decided, sort_keys=True, default=repr)
    return Path(folder) / f"kept_step-{hashlib.sha256(text.encode()).hexdigest()}"


def _signature(arguments: Sequence[Any]) -> list[str]:
    leaves, structure = jax.tree.flatten(tuple(arguments))
    return [
        str(structure),
        *(f"{jax.typeof(leaf)} {getattr(leaf, 'weak_type', False)} {leaf.sharding}" for leaf in leaves),
    ]


def _sources(others: Sequence[Path]) -> dict[str, str]:
    """Returns the checksum of every Python file of the package, of `others`, and of what a fork has imported."""
    package = Path(deskpro_jax.__file__).parent
    installed = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
    installed += (site.getusersitepackages(),)
    modules = [module for name, module in list(sys.modules.items()) if not name.startswith(_APART)]
    loaded = {file for module in modules if (file := _file(module)) is not None}
    files = {*package.rglob("*.py"), *(path for path in loaded if not str(path).startswith(installed)), *others}
    return {str(path.resolve()): integrity.digest(path) for path in files if path.is_file()}


def _file(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if isinstance(file, str) and file.endswith(".py") else None


def _devices(mesh: Mesh) -> list[str]:
    devices = list(mesh.devices.flat)
    told = [f"{device.id} {device.platform} {device.device_kind}" for device in devices]
    return [devices[0].client.platform_version, f"{len(jax.devices())} in all", *told, _processor()]


def _processor() -> str:
    """Returns what the machine's processor is and can do: a program for another one may not run here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.platform()} {platform.processor()}"
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU "))}))


def _read(place: Path, mesh: Mesh, arguments: Sequence[Any]) -> jax.stages.Compiled | None:
    """Returns a kept program; None where there is none, or none that can be used.

    It is trusted as those of jax's cache beside it are: both are code that this process runs.
    """
    try:
        content = place.read_bytes()
    except OSError:
        return None
    checksum, packed = content[:_CHECKSUM], content[_CHECKSUM:]
    if hashlib.sha256(packed).digest() != checksum:
        logging.warning("%s is damaged: the step is traced again.", place)
        return None
    try:
        program, results = pickle.loads(zlib.decompress(packed))
        structure = jax.tree.structure((tuple(arguments), {}))
        devices = list(mesh.devices.flat)
        with working_memory.given_back():
            return serialize_executable.deserialize_and_load(
                program, structure, results, backend=devices[0].client, execution_devices=devices
            )
    except Exception as error:  # whatever a runtime cannot load, it can compile
        logging.warning("%s cannot be used, the step is traced again: %s", place, error)
        return None


def _keep(place: Path, program: jax.stages.Compiled) -> None:
    try:
        serialized, _, results = serialize_executable.serialize(program)
        packed = zlib.compress(pickle.dumps((serialized, results)), 1)
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole({place: hashlib.sha256(packed).digest() + packed})
    except Exception as error:  # a full disk, a runtime that cannot: the next start takes longer, no more
        logging.warning("the step is not kept for the next start: %s", error)
