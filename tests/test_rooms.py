"""Imports go one way: from each room to earlier ones only, and never in a circle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import runs

PACKAGE = "deskpro_jax"
# The order of rooms: a room imports only from itself and from rooms earlier in this list.
ROOMS = (
    *("errors", "storage", "runtime", "config", "data", "models", "losses", "methods", "weights", "checkpoints"),
    *("workdir", "evaluation", "train", "embedding", "search", "serving", "tables", "report", "experiment", "cli"),
)
SHIMS = ("main", "embed", "ablate", "convert", "version")  # python -m deskpro_jax.NAME
SHIMS_IN_ROOMS = ("search.__main__", "report.__main__", "data.layouts")
BESIDE = ("__init__", "__main__", "extensions", *SHIMS)  # above every room: they may import any
# Imports against the order, and imports that are part of a circle, which still have to go: this may only shrink.
KNOWN: frozenset[str] = frozenset()


def modules(package: str) -> dict[str, Path]:
    """Returns the files of a package by the name that imports them; that of a package is its `__init__`."""
    root = runs.ROOT / package
    return {
        ".".join((package, *path.relative_to(root).with_suffix("").parts)).removesuffix(".__init__"): path
        for path in sorted(root.rglob("*.py"))
        if "configs" not in path.relative_to(root).parts
    }


def imported(module: str, path: Path) -> Iterator[str]:
    """Yields the dotted name of everything that a file imports, in functions and under TYPE_CHECKING as well."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join((*parents, base)).rstrip(".")
            yield from (f"{base}.{alias.name}" for alias in node.names)


def graph(*packages: str) -> dict[str, set[str]]:
    """Returns the modules that each module of some packages imports, of those packages."""
    files = {name: path for package in packages for name, path in modules(package).items()}
    edges: dict[str, set[str]] = {name: set() for name in files}
    for name, path in files.items():
        for target in imported(name, path):
            module = target if target in files else target.rpartition(".")[0]
            if target == f"{PACKAGE}.Embedder":  # which the package hands on
                module = f"{PACKAGE}.embedding.embedder"
            if module in files and module != PACKAGE:  # anyone may read the version of the package
                edges[name].add(module)
    return edges


def room(module: str) -> str:
    """Returns the room of a module of the package."""
    return module.split(".")[1] if "." in module else "__init__"


def is_free(module: str) -> bool:
    """Returns whether a module stands above every room."""
    return room(module) in BESIDE or module in [f"{PACKAGE}.{name}" for name in SHIMS_IN_ROOMS]


def upward(edges: dict[str, set[str]]) -> set[str]:
    """Returns the imports from rooms that come later in the list."""
    rank = {name: number for number, name in enumerate(ROOMS)}
    return {
        f"{module} imports {target}"
        for module, targets in edges.items()
        for target in targets
        if not is_free(module) and rank.get(room(target), len(ROOMS)) > rank[room(module)]
    }


def circular(edges: dict[str, set[str]]) -> set[str]:
    """Returns the imports that are part of a circle."""

    def reachable(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(edges[start])
        while todo:
            module = todo.pop()
            if module not in seen:
                seen.add(module)
                todo.extend(edges[module])
        return seen

    after = {module: reachable(module) for module in edges}
    return {
        f"{module} imports {target}"
        for module, targets in edges.items()
        for target in targets
        if module in after[target]
    }


def test_rooms_import_from_earlier_rooms_only_and_in_no_circle() -> None:
    edges = graph(PACKAGE)
    violations = upward(edges) | circular(graph(PACKAGE, "data_prep"))
    assert sorted(violations - KNOWN) == []
    assert sorted(KNOWN - violations) == [], "mended: take these out of KNOWN"


def test_the_data_room_has_an_order_of_its_own() -> None:
    order = (
        "schema",
        "photo_names",
        "photo_tables",
        "image_colours",
        "image_damage",
        "image_report",
        "images",
        "masks",
        "mask_statistics",
        "datasets",
        "records",
        "synthetic",
        "build",
        "load",
    )
    rank = {name: number for number, name in enumerate((*order, "check", "opening"))}
    for module, targets in graph(PACKAGE).items():
        if not module.startswith(f"{PACKAGE}.data.") or module == f"{PACKAGE}.data.layouts":
            continue
        for target in targets:
            if target.startswith(f"{PACKAGE}.data."):
                assert rank[target.split(".")[2]] <= rank[module.split(".")[2]], f"{module} imports {target}"


def test_the_root_holds_rooms_and_shims_only() -> None:
    root = runs.ROOT / PACKAGE
    names = {path.name for path in root.iterdir() if path.name != "__pycache__"}
    files = {f"{name}.py" for name in ("errors", "experiment", *BESIDE)}
    folders = {*ROOMS, "configs"} - {"errors", "experiment"}
    assert names == files | folders | {"pretrained"}  # weights and their cards, no code
    assert all((root / name / "__init__.py").is_file() for name in folders)


@pytest.mark.parametrize("shim", [*SHIMS, *SHIMS_IN_ROOMS, "__main__"])
def test_a_shim_only_calls_its_command(shim: str) -> None:
    path = modules(PACKAGE)[f"{PACKAGE}.{shim}"]
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    assert not [node for node in statements if isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.Assign))]
    names = [name for name in imported(f"{PACKAGE}.{shim}", path) if name.startswith(PACKAGE)]
    assert {room(name) for name in names} == {"cli"}


def test_what_forks_import_is_imported_by_nothing_inside() -> None:
    assert [name for name, targets in graph(PACKAGE).items() if f"{PACKAGE}.extensions" in targets] == []


def test_the_package_imports_nothing_that_stands_around_it() -> None:
    for module, path in modules(PACKAGE).items():
        tops = {name.split(".")[0] for name in imported(module, path)}
        assert not tops & {"data_prep", "benchmarks", "configs", "tests", "runs"}, module


def test_every_kind_of_import_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text(
        "from __future__ import annotations\nimport a.b\nfrom c import d, e\nfrom . import f\nfrom ..g import h\n"
        "if TYPE_CHECKING:\n    from i import j\ndef k():\n    import l\n"
    )
    names = set(imported("top.room.module", path))
    assert names == {"__future__.annotations", "a.b", "c.d", "c.e", "top.room.f", "top.g.h", "i.j", "l"}


def test_a_circle_and_an_import_of_a_later_room_are_violations() -> None:
    edges = {f"{PACKAGE}.data.a": {f"{PACKAGE}.train.b"}, f"{PACKAGE}.train.b": {f"{PACKAGE}.data.a"}}
    assert upward(edges) == {f"{PACKAGE}.data.a imports {PACKAGE}.train.b"}
    assert len(circular(edges)) == 2
    assert upward({f"{PACKAGE}.main": {f"{PACKAGE}.cli.c"}, f"{PACKAGE}.cli.c": set()}) == set()
