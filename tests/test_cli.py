"""`deskpro COMMAND`: every command exists, shows how it is used, and is loaded only when it is run."""

from __future__ import annotations

import importlib.util
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import forked
import runs
from deskpro_jax import __version__
from deskpro_jax.cli import deskpro, train
from deskpro_jax.cli.commands import COMMANDS, Command
from deskpro_jax.config import files as config_files
from deskpro_jax.errors import MissingInputError

HEAVY = ("jax", "numpy", "absl", "ml_collections")
NAMES = [command.name for command in COMMANDS]


def installed(command: Command) -> bool:
    try:
        return importlib.util.find_spec(command.module) is not None
    except ModuleNotFoundError:  # not even the package that it is in
        return False


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The dispatcher handles SIGTERM for its process; here that is the process of the tests."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("flag", ["-h", "--help", "help"])
def test_help_lists_every_command_and_the_exit_codes(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert deskpro.main([flag]) == 0
    out = capsys.readouterr().out
    for command in COMMANDS:
        assert re.search(rf"^  {command.name} +{re.escape(command.summary)}$", out, re.M)
    assert "exit codes: 0 done, 1 failed" in out
    assert out.count("  deskpro ") >= 3  # examples


def test_without_a_command_the_help_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert deskpro.main([]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "usage: deskpro COMMAND" in captured.err


def test_a_misspelt_command_is_answered_with_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert deskpro.main(["serach", "--gallery", "x"]) == 2
    assert "error: no command is called 'serach'; did you mean search?" in capsys.readouterr().err
    assert deskpro.main(["qqq"]) == 2
    assert "'deskpro --help' lists them" in capsys.readouterr().err


def test_help_and_version_load_no_large_package() -> None:
    script = (
        "import sys; from deskpro_jax.cli import deskpro as cli\n"
        "assert cli.main(['--help']) == cli.main(['--version']) == 0 and cli.main(['serach']) == 2\n"
        f"print([name for name in {HEAVY} if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", script], cwd=runs.ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines()[-1] == "[]"
    assert f"deskpro {__version__}" in found.stdout


@pytest.mark.parametrize("name", ["embed", "report", "search", "version", "draw"])
def test_the_help_of_these_commands_loads_no_jax(name: str) -> None:
    script = (
        f"import sys; from deskpro_jax.cli.{name} import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('jax' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], cwd=runs.ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_every_module_has_what_is_called(command: Command) -> None:
    if not installed(command):
        pytest.skip(f"{command.module} is not written yet")
    assert callable(getattr(importlib.import_module(command.module), command.function))


@pytest.mark.parametrize("command", COMMANDS, ids=NAMES)
def test_the_help_of_a_command_has_its_name_and_examples(command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    if not installed(command):
        pytest.skip(f"{command.module} is not written yet")
    try:
        code = deskpro.main([command.name, "--help"])
    except SystemExit as end:
        code = end.code  # type: ignore[assignment]
    assert code in (0, None)
    out = capsys.readouterr().out
    assert f"usage: deskpro {command.name}" in out
    for example in command.examples:
        assert f"  deskpro {example}" in out
    assert "exit codes: 0" in out


def test_help_may_precede_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        deskpro.main(["help", "check"])
    assert "usage: deskpro check" in capsys.readouterr().out


def test_the_flags_of_training_are_all_in_its_help_and_evaluate_sets_the_mode(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, has_mode in (("train", True), ("evaluate", False)):
        assert deskpro.main([name, "--help"]) == 0
        out = capsys.readouterr().out
        assert all(f"  --{flag} " in out for flag in ("config", "workdir", "coordinator", "processes", "process"))
        assert ("  --mode " in out) == has_mode
        assert all(config in out for config in config_files.names())


@pytest.mark.parametrize("module", ["data_prep.nothing_here", "not_a_package_of_anybody"])
def test_a_module_that_is_missing_is_one_line(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Command("broken", module, "fails", (), extra="prep")
    monkeypatch.setattr(deskpro, "find_command", lambda _: broken)
    assert deskpro.main(["broken"]) == 2
    expected = f"error: deskpro broken needs {module}: pip install 'deskpro_jax[prep]'\n"
    assert capsys.readouterr().err == expected


def test_wrong_input_ends_with_one_line_and_code_2(tmp_path: Path) -> None:
    cases = {
        ("train", "--config", "celebb", "--workdir", "w"): "error: --config celebb: there is no such file, and no "
        "configuration; did you mean celeb?",
        ("train", "--config=configs/celeb.py:csaa", "--workdir=w"): "No variant 'csaa'",
        ("evaluate", "--config", "synthetic:debug", "--workdir", "absent"): "error: no workdir at absent",
        ("evaluate", "--workdir", "w"): "error: --config is missing",
        ("train", "--config=synthetic", "--config.train.epoch=3", "--workdir=w"): 'Did you mean "epochs"',
    }
    for expected, (code, _, err) in zip(cases.values(), forked.run(cases, tmp_path), strict=True):
        assert code == 2, err
        assert expected in err
        assert "Traceback" not in err
        assert len(err.strip().splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_a_configuration_is_an_existing_file_or_an_installed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ("celeb", "celeb.py", "configs/celeb", "configs/celeb.py"):
        assert config_files.find_config(given) == str(config_files.FOLDER / "celeb.py")
    assert config_files.find_config("prcc:csa,debug") == f"{config_files.FOLDER / 'prcc.py'}:csa,debug"
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "celeb.py").touch()
    assert config_files.find_config("configs/celeb.py:x") == "configs/celeb.py:x"
    assert config_files.find_config("celeb") == str(config_files.FOLDER / "celeb.py")  # a name is never a file here
    for given, message in {
        "configs/celebb.py": r"did you mean celeb\b",
        "mine/celeb.py": r"--config mine/celeb.py: there is no such file",
        "variants": "installed are ccvid, celeb, celeb_light",
        "": r"--config \(empty\)",
    }.items():
        with pytest.raises(MissingInputError, match=message):
            config_files.find_config(given)


def test_every_installed_configuration_is_a_file_of_configs() -> None:
    files = {path.stem for path in (runs.ROOT / "configs").glob("*.py")}
    assert set(config_files.names()) == files - {"__init__", "base", "small", "variants"}
    assert config_files.FOLDER.resolve() == runs.ROOT / "configs"


def test_the_name_of_a_configuration_is_replaced_by_its_path() -> None:
    celeb = str(config_files.FOLDER / "celeb.py")
    found = train._with_config_file(["x", "--workdir", "celeb", "--config", "celeb", "--config.seed=1"])
    assert found == ["x", "--workdir", "celeb", "--config", celeb, "--config.seed=1"]
    assert train._with_config_file(["x", "--config=celeb"]) == ["x", f"--config={celeb}"]
    assert train._with_config_file(["x", "--config"]) == ["x", "--config"]
