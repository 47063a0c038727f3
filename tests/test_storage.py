"""Files and folders are written atomically and flushed to disk; one lock; no other module does either by itself."""

from __future__ import annotations

import ast
import fcntl
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import runs
from deskpro_jax.errors import InputError, MissingInputError, RunError
from deskpro_jax.storage import checksums, files
from deskpro_jax.storage.locks import locked

# Modules that may use the calls that `storage/` wraps, and why.
MAY_RENAME = {"storage/files.py": "the one function that does", "storage/checksums.py": "puts a damaged folder aside"}
MAY_SYNC = {"storage/files.py": "the one function that does"}
MAY_LOCK = {"storage/locks.py": "the one function that does"}
MAY_READ_JSON = {
    "storage/files.py": "the one function that does",
    "storage/checksums.py": "a damaged list of checksums is reported as damage of the checkpoint",
    "checkpoints/metadata.py": "Orbax's own file, of which an older one is read when it is damaged",
    "data/build/shards.py": "a report that cannot be read is written again",
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Records what is flushed to disk and what is renamed, in order, by name."""
    recorded: list[tuple[str, str]] = []
    sync, replace = os.fsync, Path.replace

    def record_sync(descriptor: int) -> None:
        recorded.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}")).name))
        sync(descriptor)

    def record_rename(source: Path, target: Path) -> Path:
        recorded.append(("rename", target.name))
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_rename)
    return recorded


def kinds(calls: list[tuple[str, str]], folder: Path) -> list[str]:
    """Returns the calls in order; a temporary file is called "temporary"."""
    return [
        f"{what} folder" if name == folder.name else f"{what} {'temporary' if name.endswith('.tmp') else name}"
        for what, name in calls
    ]


@pytest.mark.parametrize(
    "write",
    [
        lambda path: files.write_text(path, "x"),
        lambda path: files.write_bytes(path, b"x"),
        lambda path: files.write_json(path, {}),
        lambda path: files.write_files({path: b"x"}),
        lambda path: files.write_bytes(path, b"x", scratch=path.parent),
    ],
)
def test_a_file_is_flushed_before_it_is_renamed_and_its_folder_after(
    write: Callable[[Path], None], tmp_path: Path, calls: list[tuple[str, str]]
) -> None:
    write(tmp_path / "a.json")
    assert kinds(calls, tmp_path) == ["sync temporary", "rename a.json", "sync folder"]
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_several_files_are_renamed_in_order_once_all_are_complete(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    files.write_files({tmp_path / "a.json": b"{}", tmp_path / "a": b"1"})
    one = ["sync temporary", "rename {}", "sync folder"]
    assert kinds(calls, tmp_path) == [call.format(name) for name in ("a.json", "a") for call in one]


def test_a_folder_is_flushed_with_all_that_is_in_it(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    (tmp_path / "out").mkdir()  # an empty folder may be there
    with files.atomic_folder(tmp_path / "out") as folder:
        (folder / "below").mkdir()
        (folder / "below" / "a").write_text("x")
        (folder / "b").write_text("x")
    listed = kinds(calls, tmp_path)
    assert sorted(listed[:3]) == ["sync a", "sync b", "sync below"]
    assert listed[3:] == ["sync temporary", "rename out", "sync folder"]
    assert (tmp_path / "out" / "below" / "a").read_text() == "x"


def test_a_checkpoint_is_on_disk_before_its_checksums(tmp_path: Path, calls: list[tuple[str, str]]) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "a").write_text("x")
    checksums.write_checksums(tmp_path)
    assert kinds(calls, tmp_path)[:3] == ["sync a", "sync state", "sync folder"]
    assert kinds(calls, tmp_path)[-2:] == ["rename checksums.json", "sync folder"]


def test_what_fails_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")

    def fill(folder: Path) -> None:
        (folder / "c").write_text("ne")
        raise ValueError("halfway")

    def write(path: Path) -> None:
        path.write_text("ne")
        raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"), files.atomic_path(tmp_path / "a") as temporary:
        write(temporary)
    with pytest.raises(ValueError, match="halfway"), files.atomic_folder(tmp_path / "b") as temporary:
        fill(temporary)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"a": "old"}


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    script = (
        "import os, pathlib, signal, sys\n"
        "from deskpro_jax.storage import files\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.write_text(pathlib.Path(sys.argv[1]), 'x')\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(runs.ROOT)}
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a.json")], env=environment, check=False)
    (left,) = tmp_path.iterdir()
    assert files.is_temporary(left)
    kept = [".hidden", ".a.json", ".a.tmp", "b.json"]
    for name in (".results.json.1234", *kept):  # the first: as earlier versions left it
        (tmp_path / name).touch()
    files.remove_temporaries(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)


def test_names_of_any_length_that_a_file_system_takes_can_be_written(tmp_path: Path) -> None:
    for name in ("n" * 255, "ä" * 127):
        files.write_text(tmp_path / name, "x")
    assert len(list(tmp_path.iterdir())) == 2


def test_new_files_have_the_permissions_of_any_other(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "x")
    (tmp_path / "b").write_text("x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_lock_keeps_others_out_until_it_is_released(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "lock"):
        with locked(path), pytest.raises(RunError, match="another process is at work in"), locked(path):
            pass
        with locked(path):
            pass
    with locked(tmp_path), pytest.raises(RunError, match="wait for the build"), locked(tmp_path, "wait for the build"):
        pass


def test_a_lock_waits_as_long_as_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, held = [0.0], locked(tmp_path)
    held.__enter__()
    monkeypatch.setattr("time.monotonic", lambda: clock[0])

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        if clock[0] > release:
            held.__exit__(None, None, None)

    monkeypatch.setattr("time.sleep", sleep)
    release = 30.0
    with pytest.raises(RunError), locked(tmp_path, seconds=20):
        pass
    assert 20 <= clock[0] < 21
    release = 25.0
    with locked(tmp_path, seconds=20):
        assert 25 < clock[0] < 26


def test_a_file_system_without_locks_is_worked_on_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path):
        pass
    assert f"{tmp_path} cannot be locked" in caplog.text


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b'{"a": ', "Expecting value"), (b"[1]", "found a list"), (b"", "Expecting value"), (b"\xff", "codec"),
     (b"[" * 100_000, "recursion")],
)  # fmt: skip
def test_a_damaged_json_file_is_named_with_what_to_do(content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"a.json is damaged; expected a JSON object.*{reason}.*: build it again"):
        files.read_json(path, "build it again")
    with pytest.raises(RunError, match="is damaged"):
        files.require_json(path, error=RunError)


def test_json_that_is_not_there_is_none_or_an_error(tmp_path: Path) -> None:
    assert files.read_json(tmp_path / "a.json") is None
    with pytest.raises(MissingInputError, match=r"no file .*a\.json: build it"):
        files.require_json(tmp_path / "a.json", "build it")
    files.write_json(tmp_path / "a.json", {"a": "ä"})
    assert files.require_json(tmp_path / "a.json") == {"a": "ä"}


def called(tree: ast.AST) -> set[str]:
    """Returns the names of the calls in a module that only `storage/` may make."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            arguments, owner = len(node.args), node.func.value
            module = owner.id if isinstance(owner, ast.Name) else ""
            # `str.replace` takes two arguments, `Path.replace` one.
            path = node.func.attr in ("replace", "rename") and arguments == 1 and not node.keywords
            if path or (module in ("os", "shutil") and node.func.attr in ("replace", "rename", "renames", "move")):
                names.add("rename")
            if module == "json" and node.func.attr in ("load", "loads") and "read_" in ast.dump(node.args[0]):
                names.add("JSON reader")
            if node.func.attr in ("fsync", "fdatasync", "sync") and module == "os":
                names.add("sync")
        if isinstance(node, ast.Import) and any(alias.name == "fcntl" for alias in node.names):
            names.add("lock")
        if isinstance(node, ast.ImportFrom) and node.module == "fcntl":
            names.add("lock")
        if isinstance(node, ast.ImportFrom) and node.module in ("os", "shutil"):
            names |= {"rename" for alias in node.names if alias.name in ("replace", "rename", "renames", "move")}
            names |= {"sync" for alias in node.names if alias.name in ("fsync", "fdatasync", "sync")}
    return names


def test_calls_of_which_there_is_one_function_are_recognised() -> None:
    for source in ("os.replace(a, b)", "a.replace(b)", "a.rename(b)", "shutil.move(a, b)", "from os import replace"):
        assert called(ast.parse(source)) == {"rename"}, source
    assert called(ast.parse("os.fsync(a)")) == {"sync"}
    assert called(ast.parse("import fcntl")) == {"lock"}
    assert called(ast.parse("json.loads(path.read_text())")) == {"JSON reader"}
    for source in ("json.loads(line)", "'a'.replace('b', 'c')", "dataclasses.replace(a, b=1)", "box.replace(value=1)"):
        assert not called(ast.parse(source)), source


def test_no_other_module_renames_flushes_locks_or_parses_files_itself() -> None:
    allowed = {"rename": MAY_RENAME, "sync": MAY_SYNC, "lock": MAY_LOCK, "JSON reader": MAY_READ_JSON}
    paths = [path for room in ("deskpro_jax", "data_prep", "benchmarks") for path in (runs.ROOT / room).rglob("*.py")]
    assert len(paths) > 200
    for path in paths:
        name = path.relative_to(runs.ROOT).as_posix().removeprefix("deskpro_jax/")
        for what in called(ast.parse(path.read_text(encoding="utf-8"))):
            assert name in allowed[what], f"{name} uses its own {what}: use deskpro_jax.storage"
