"""Every command in README and docs is one that its program takes; those that need no weights and no downloads run."""

from __future__ import annotations

import argparse
import copy
import csv
import functools
import importlib
import importlib.util
import inspect
import re
import shutil
import signal
import sys
import tomllib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from absl import flags
from ml_collections import config_flags

import documented
import runs
import test_rooms
from deskpro_jax.cli import deskpro, embed, train
from deskpro_jax.cli.commands import COMMANDS, find_command
from deskpro_jax.data.load import dataset
from documented import Documented
from small_models import write_files

ALL = [command for page in documented.pages() for command in documented.commands(page)]

# Commands of other programs, by their first words, and why they are neither run nor parsed here.
OTHERS = {
    ("python3", "-m", "venv"): "makes an environment; CI runs it",
    (".", ".venv/bin/activate"): "enters the environment",
    ("cd",): "changes the folder",
    ("find",): "lists checksums of the reader's own files",
    ("git",): "gets or shows the code",
    (".venv/bin/ruff",): "CI runs it",
    (".venv/bin/mypy",): "CI runs it",
    ("bash", ".ci/run"): "is CI",
    ("sphinx-build",): "CI runs it",
    ("python", "docs/serve_stablehlo.py"): "needs an exported network; test_serving runs it",
    ("gcloud",): "TPU machines",
    ("srun",): "Slurm",
    ("sbatch",): "Slurm",
}
MODULES = {"pytest": "CI runs it", "venv": "makes an environment; CI runs it", "sphinx": "CI runs it"}
# Files of the reader that a command names and whose content is read while its flags are.
STAND_INS = {"my_config.py": "configs/celeb.py"}


class Parsed(Exception):
    """The flags of a command were taken; it is not run."""


def starts(command: Documented, first: tuple[str, ...]) -> bool:
    return command.words[: len(first)] == first


def is_written(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def is_pip(command: Documented) -> bool:
    return bool(re.fullmatch(r"(.*/)?pip", command.words[0]))


def test_there_are_commands_on_every_page_that_should_have_some() -> None:
    found = {command.page for command in ALL}
    assert {"README.md", "docs/quick_start.md", "docs/reproducing.md", "docs/forking.md", "docs/weights.md"} <= found
    assert len(ALL) > 50


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends argparse commands once their flags are parsed."""
    whole, known = argparse.ArgumentParser.parse_args, argparse.ArgumentParser.parse_known_args

    def parse(self: argparse.ArgumentParser, *arguments: object) -> NoReturn:
        self.parse_known_args = functools.partial(known, self)  # type: ignore[method-assign] # parse_args calls it
        whole(self, *arguments)  # type: ignore[call-overload]
        raise Parsed

    def parse_known(self: argparse.ArgumentParser, *arguments: object) -> NoReturn:
        known(self, *arguments)  # type: ignore[call-overload]
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", parse_known)
    monkeypatch.chdir(runs.ROOT)


def check_training(arguments: list[str]) -> None:
    """Parses flags as `deskpro_jax.main` does, into flags of their own."""
    argv = train._with_config_file(["deskpro", *(STAND_INS.get(word, word) for word in arguments)])
    own = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=own, sys_argv=argv)
    for flag in next(found for found in flags.FLAGS.flags_by_module_dict().values() if train._is_own(found)):
        if flag.name != "config" and not flag.name.startswith("config."):
            flags.DEFINE_flag(copy.deepcopy(flag), own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # how ml_collections loads a file
        assert own(argv) == ["deskpro"], "arguments that are no flags"
    assert own["config"].value.seed is not None  # a file that is not there says so when it is used
    assert own["workdir"].value or own["config"].value is None


def check_module(module: str, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if module in ("deskpro_jax.main", "deskpro_jax.cli.train"):
        check_training(arguments)
        return
    found = importlib.import_module(module)
    main = found.main if hasattr(found, "main") else importlib.import_module(f"{module}.__main__").main
    monkeypatch.setattr(sys, "argv", [module, *arguments])
    with pytest.raises(Parsed):
        main(arguments) if inspect.signature(main).parameters else main()


@pytest.mark.parametrize("command", ALL, ids=str)
@pytest.mark.usefixtures("parse_only")
def test_a_command_of_the_documentation_has_flags_that_exist(
    command: Documented, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if any(starts(command, first) for first in OTHERS):
        return
    if is_pip(command):
        check_pip(command)
        return
    words = list(command.words)
    if words[0].startswith("--config."):  # flags alone, to be added to a command
        check_training(["--config=prcc", "--workdir=w", *words])
        return
    if words[0] in ("deskpro", ".venv/bin/deskpro"):
        if words[1] in ("--help", "--version"):
            return
        found = find_command(words[1])
        assert found is not None, f"{command}: no such command"
        module, arguments = found.module, [*words[2:], *found.arguments]
    else:
        python = documented.module_of(command.words)
        assert python is not None, f"{command}: neither a command of the package nor one of OTHERS in {__file__}"
        module, arguments = python
        if module in MODULES:
            return
    try:
        check_module(module, arguments, monkeypatch)
    except SystemExit as end:
        pytest.fail(f"{command}: {capsys.readouterr().err or end}")


def check_pip(command: Documented) -> None:
    """The package's own extras have to exist."""
    known = tomllib.loads((runs.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = re.findall(r"(?:^| )(?:\.|deskpro_jax)\[([\w,]+)\]", " ".join(command.words))
    for extra in ",".join(named).split(",") if named else ():
        assert extra in known, f"{command}: there is no extra {extra}"


@pytest.mark.parametrize(
    "example", [(c.name, example) for c in COMMANDS for example in c.examples], ids=lambda example: example[1]
)
@pytest.mark.usefixtures("parse_only")
def test_the_examples_of_a_help_have_flags_that_exist(
    example: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    line = Documented("help", 0, ("deskpro", *example[1].replace("'", "").split()))
    command = find_command(example[0])
    assert command is not None
    if not is_written(command.module):
        pytest.skip(f"{command.module} is not written yet")
    check_module(command.module, [*line.words[2:], *command.arguments], monkeypatch)


# What runs: these commands of these pages, in the order in which they stand there, on people that are drawn.
RUN_PAGES = ("README.md", "docs/quick_start.md", "docs/embedding_and_search.md", "docs/weights.md")
RUN = ("draw", "embed", "search", "version", "convert")
WORDS = {"small": "tiny", "DIR": "photos", "PARTS": "prepared", "0.01": "0.1"}  # 1 % needs more people
NEEDS_MORE = {
    "celeb_deskpro.pth": "a released file; test_convert writes such files",
    "mobilenet0.25_Final.pth": "a released file; test_face_finder writes such files",
    "celeb.stablehlo": "exported by test_serving",
    "celeb.onnx": "exported by test_serving",
}


@pytest.fixture(scope="module")
def reader(untrained: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands name: photos, their faces, a run, embeddings of other people."""
    folder = tmp_path_factory.mktemp("reader")
    query = dataset.load("synthetic_tiny", tiny_data, "query")
    write_files(query, folder)
    shutil.copy(next((folder / "photos").iterdir()), folder / "photo.jpg")
    shutil.copy(next((folder / "prepared/face").iterdir()), folder / "face.png")
    with (folder / "labelled.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(("path", "identity"))
        lines.writerows((f"photos/{name}.jpg", who) for name, who in zip(query.image_id, query.identity, strict=True))
    flags_ = ["--checkpoint", str(untrained), "--faces", str(folder / "prepared")]
    for name, images in (("labelled", "labelled.csv"), ("queries", "photos")):
        given = ["--images", str(folder / images), "--out", str(folder / f"{name}.parquet")]
        assert embed.main([*flags_, *given]) == 0
    for run in ("celeb", "synthetic"):
        (folder / "runs").mkdir(exist_ok=True)
        (folder / "runs" / run).symlink_to(untrained)
    return folder


@pytest.fixture
def unchanged_signals() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.slow
@pytest.mark.usefixtures("unchanged_signals")
@pytest.mark.parametrize("page", RUN_PAGES)
def test_the_commands_of_a_page_run_one_after_the_other(
    page: str, reader: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for entry in reader.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    ran = []
    for command in documented.commands(runs.ROOT / page):
        words = list(command.words)
        if python := documented.module_of(command.words):
            name = next((one.name for one in COMMANDS if one.module == python[0] and not one.arguments), "")
            shim = python[0].removeprefix("deskpro_jax.")  # python -m deskpro_jax.embed is deskpro embed
            words = ["deskpro", shim if find_command(shim) else name, *python[1]]
        if words[0] != "deskpro" or words[1] not in RUN or NEEDS_MORE.keys() & set(words):
            continue
        read = WORDS | ({"DIR": "drawn"} if words[1] == "draw" else {})  # DIR is written there, read elsewhere
        code = deskpro.main([read.get(word, word) for word in words[1:]])
        assert code == 0, f"{command}: {capfd.readouterr().err}"
        ran.append(words[1])
    assert len(ran) >= {"docs/embedding_and_search.md": 6, "docs/quick_start.md": 4}.get(page, 1)
    if "embed" in ran:
        assert (tmp_path / "gallery.parquet").stat().st_size > 0


def test_the_picture_of_the_rooms_is_drawn_anew_and_in_the_order_of_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    images = runs.ROOT / "docs" / "images"
    monkeypatch.syspath_prepend(str(images))
    draw_rooms = importlib.import_module("draw_rooms")
    assert draw_rooms.drawing() == (images / "rooms.svg").read_text(encoding="utf-8")
    assert draw_rooms.ROOMS == test_rooms.ROOMS


def test_the_readme_is_short() -> None:
    assert len((runs.ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 130
