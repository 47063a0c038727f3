"""Every command works with paths of any characters, on workdirs that cannot be written, and without file locks."""

from __future__ import annotations

import csv
import errno
import fcntl
import json
import logging
import math
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import forked
import runs
import small_models
import standins
from data_prep import build, check, review
from deskpro_jax import experiment
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.cli import ablate, convert, draw, embed, report, search, version
from deskpro_jax.errors import InputError, end_command
from deskpro_jax.storage.files import atomic_folder, check_writable, write_text
from deskpro_jax.storage.locks import locked
from gallery import people, write
from read_only import read_only

# Blanks, what URLs, shells, patterns and HTML read otherwise, quotes, a line break, letters of other scripts.
ODD = "a b#c%41?&+'q\"$HOME;*{x}@2~,=<b>\nñ日本 é"
NAMES = ("a b.png", "c#1.png", "d%41.png", "e'q'.png", 'f"g".png', "日本.png", "é.png", "x[1].png", "y;z,.png")
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)
WRITABLE = "cannot be written (Read-only file system)"


@pytest.fixture(scope="module")
def odd(untrained: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a strange name, with a workdir, a dataset, photos with a manifest, and embeddings."""
    folder = tmp_path_factory.mktemp("paths") / ODD
    shutil.copytree(untrained, folder / "run #")
    shutil.copytree(tiny_data, folder / "data %")
    photos = folder / "photos 'q'"
    photos.mkdir()
    for number, name in enumerate(NAMES):
        standins.draw_photo(number, (32, 64)).save(photos / name)
    with (photos / "manifest.csv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["path", "split", "identity", "camera", "clothes"])
        for number, name in enumerate(NAMES):
            split = ("train", "query", "gallery")[number % 3]
            lines.writerow([name, split, number % 2 if split == "train" else 7, number % 3, 0])
    write(people(40, 8, 0), folder / "gallery #.parquet")
    write(people(3, 8, 1), folder / "query %.npy")
    return folder


@pytest.fixture
def without_locks(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Commands turn the level of loggers down for their process."""
    level = logging.getLogger("absl").level
    yield
    logging.getLogger("absl").setLevel(level)


def command_lines(odd: Path, out: Path) -> dict[str, tuple[Callable[[list[str]], int], list[str], list[str]]]:
    """Returns for each command its function, its arguments, and what it writes into `out`."""
    run, photos = str(odd / "run #"), odd / "photos 'q'"
    found = ["--gallery", str(odd / "gallery #.parquet"), "--query", str(odd / "query %.npy")]
    prepared = [f"--images={photos}", f"--out={out / 'prepared #'}", "--parser=w", "--detector=w", "--restorer=w"]
    table = ["--config=synthetic:debug", f"--workdir={out / 'table #'}", "--rows=teacher", "--seeds=1", "--jobs=1"]
    return {
        "draw": (draw.main, ["--size=tiny", f"--out={out / 'drawn #'}"], ["drawn #/imgs"]),
        "check": (
            check.main,
            [str(photos / "manifest.csv"), f"--json={out / 'c #.json'}", f"--sheet={out / 's %.png'}"],
            ["c #.json", "s %.png"],
        ),
        "build": (
            build.main,
            ["--dataset=folder", f"--raw={photos / 'manifest.csv'}", f"--out={out / 'built %'}", "--workers=0"],
            ["built %/cc_reid/folder"],
        ),
        "prepare": (_prepare, prepared, ["prepared #/images.parquet", "prepared #/parts/日本.png"]),
        "embed": (
            embed.main,
            ["--checkpoint", run, "--images", str(photos), "--out", str(out / "e #.parquet"), "--batch=16"],
            ["e #.parquet"],
        ),
        "search": (search.main, [*found, f"--out={out / 'm #.csv'}"], ["m #.csv"]),
        "search by an index": (
            search.main,
            [*found, "--method=hnsw", f"--index={out / 'index #'}", f"--out={out / 'm %.json'}"],
            ["index #", "m %.json"],
        ),
        "report": (
            report.main,
            [run, "--quick", f"--out={out / 'r #.html'}"],
            ["r #.html"],
        ),
        "convert": (convert.main, [run, "--to", str(out / "w #.safetensors")], ["w #.safetensors", "w #.md"]),
        "version": (version.main, [run], []),
        "ablate": (ablate.main, table, ["table #/ablation.md"]),
    }


def _prepare(arguments: list[str]) -> int:
    """Runs prepare with tiny networks, of a file each beside the tests."""
    file = str(Path(standins.__file__))
    return standins.run([*(argument.replace("=w", f"={file}") for argument in arguments), "--batch=4", "--workers=2"])


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


COMMANDS = tuple(command_lines(Path("x"), Path("x")))


@pytest.fixture
def table_of_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a table have no cells to run: it is written all the same."""
    monkeypatch.setattr(ablate, "run_cells", lambda cells, folder, jobs: {})
    monkeypatch.setattr(ablate, "build_data", lambda config, folder: folder)


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("without_locks", "table_of_nothing")
def test_commands_take_paths_of_any_characters_without_locks_and_leave_read_only_folders_as_they_are(
    name: str, odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = _made(tmp_path / ODD)
    function, arguments, written = command_lines(odd, out)[name]
    with read_only(odd):
        code = function(arguments)
    captured = capsys.readouterr()
    assert (code, "Traceback" in captured.err) == (0, False), captured.err
    assert [path for path in written if not (out / path).exists()] == []


def test_photos_of_any_name_are_found_embedded_and_shown(
    odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = _made(tmp_path / ODD)
    for line in ("embed", "build", "prepare"):
        function, arguments, _ = command_lines(odd, out)[line]
        assert function(arguments) == 0
    flags = [
        "--gallery",
        str(out / "e #.parquet"),
        "--checkpoint",
        str(odd / "run #"),
        "--format=json",
        "-k1",
        "--batch=16",
    ]
    capsys.readouterr()
    assert search.main([*flags, "--query", str(odd / "photos 'q'")]) == 0
    found = {query["query"]: query["matches"][0]["image_id"] for query in json.loads(capsys.readouterr().out)}
    assert found == {name: name for name in (photo.removesuffix(".png") for photo in NAMES)}
    assert review.main([str(out / "prepared #"), "--out", str(out / "review #.html")]) == 0
    page = (out / "review #.html").read_text(encoding="utf-8")
    assert page.count("日本") >= 1
    assert "f&#34;g&#34;" in page


def test_a_run_at_a_path_of_any_characters(odd: Path, tmp_path: Path) -> None:
    config, run = _made(tmp_path / ODD) / "my #conf é.py", tmp_path / ODD / "new run %20"
    shutil.copy(runs.ROOT / "configs" / "synthetic.py", config)
    flags = [f"--config={config}:debug", *runs.flags(run, odd / "data %", model__face="none", train__epochs=1)[1:]]
    trained, printed, evaluated, reported = forked.run(
        [
            ["train", *flags],
            ["evaluate", *flags, "--print"],
            ["evaluate", *flags],
            ["report", str(run), "--out", str(tmp_path / ODD / "page #.html")],
        ],
        tmp_path,
    )
    assert [end.code for end in (trained, printed, evaluated, reported)] == [0, 0, 0, 0], trained.err + evaluated.err
    table = [line for line in trained.out.splitlines() if "general" in line]
    assert table
    assert [line for line in printed.out.splitlines() if "general" in line] == table
    assert (tmp_path / ODD / "page #.html").stat().st_size > 10_000


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "version"])
@pytest.mark.usefixtures("table_of_nothing")
def test_a_place_that_cannot_be_written_is_one_line(
    name: str, number: int, odd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    function, arguments, _ = command_lines(odd, out)[name]  # makes the files of prepare's networks
    out.mkdir(exist_ok=True)
    with read_only(out, number):
        code = function(arguments)
    lines = capsys.readouterr().err.splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert (code, len(errors)) == (2, 1), lines
    assert str(out) in errors[0]
    assert os.strerror(number) in errors[0]
    assert ".tmp" not in errors[0]
    assert errors[0].endswith(".")


@pytest.mark.parametrize("name", ["run [1]", "a**b", "back\\slash"])
def test_a_path_that_checkpoints_would_be_lost_in_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be written to .* use a path without"):
        CheckpointStore(tmp_path / name / "checkpoints", best_metric=None)
    assert list(tmp_path.iterdir()) == []


def test_an_evaluation_of_a_read_only_workdir_prints_the_same_results(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    c = runs.config(tiny_data)
    run = small_models.write_workdir(tmp_path / "read only", tiny_data)
    with read_only(run):
        with pytest.raises(InputError) as caught:
            experiment.run(c, run, "evaluate")
        assert f"{run} {WRITABLE}: it gets the results; --print shows them and writes nothing." in str(caught.value)
        printed = experiment.run(c, run, "evaluate", write=False)
        assert "general" in capsys.readouterr().out
    copy = shutil.copytree(run, tmp_path / "run")
    written = experiment.run(c, copy, "evaluate")
    assert [result.row() for result in printed] == [result.row() for result in written]
    with read_only(copy), pytest.raises(OSError, match=r"Read-only|cannot be written"):
        experiment.run(c, copy, "train")


def test_a_report_of_a_read_only_workdir_asks_for_another_path(
    odd: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deskpro_jax.report.contents.gather", lambda *_: pytest.fail("computed before it was checked"))
    with read_only(odd):
        assert report.main([str(odd / "run #")]) == 2
    assert f"{WRITABLE}: give the page another path (--out)." in capsys.readouterr().err


@pytest.mark.parametrize("number", NO_LOCKS)
def test_without_locks_work_goes_on_with_a_warning(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(descriptor: int, operation: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    for seconds in (0, math.inf):
        caplog.clear()
        with locked(tmp_path, seconds=seconds):
            pass
        assert "cannot be locked" in caplog.text
    with read_only(tmp_path), pytest.raises(OSError, match="Read-only"), locked(tmp_path / "lock"):
        pass


def test_errors_name_what_the_user_gave(tmp_path: Path) -> None:
    with read_only(tmp_path):
        with pytest.raises(OSError, match="Read-only") as caught:
            write_text(tmp_path / "a.txt", "x")
        assert caught.value.filename == str(tmp_path / "a.txt")
        with pytest.raises(OSError, match="Read-only") as caught, atomic_folder(tmp_path / "b" / "c"):
            pass
        assert "tmp" not in Path(caught.value.filename).name
        with pytest.raises(InputError, match=f"{tmp_path} cannot be written .Read-only file system.: choose another"):
            check_writable(tmp_path / "not" / "yet", "choose another")
    check_writable(tmp_path / "not" / "yet", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "x.html"), 2, "correct the path, or its permissions."),
        (OSError(errno.EROFS, "Read-only file system", "x.html"), 2, "correct the path, or its permissions."),
        (OSError(errno.ENOSPC, "No space left on device", "x.html"), 1, "free some space, or give another path."),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "free some space, or give another path."),
        (RuntimeError("write() failed: No space left on device; x\nat"), 1, "free some space, or give another path."),
        (RuntimeError("open() failed: Read-only file system; x"), 1, "correct the path, or its permissions."),
    ],
)
def test_errors_of_the_system_say_what_to_do(
    error: Exception, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> int:
        raise error

    assert end_command(work) == code
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.endswith(f": {line}\n")
    assert said.count("\n") == 1
    if isinstance(error, OSError) and error.filename:
        assert said == f"error: x.html cannot be used ({error.strerror}): {line}\n"


def test_other_errors_keep_their_traceback() -> None:
    def work() -> int:
        raise RuntimeError("a mistake")

    with pytest.raises(RuntimeError, match="a mistake"):
        end_command(work)
