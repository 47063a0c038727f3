"""The wheel, installed outside the checkout, has the command, the configurations and every other file it needs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import deskpro_jax
import runs
from deskpro_jax.config import files

TREE = ("deskpro_jax", "data_prep", "configs", "pyproject.toml", "README.md", "LICENSE")


def succeed(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs a program without anything of the checkout around it."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(arguments, cwd=cwd, env=env, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, since setuptools writes beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in TREE:
        source = runs.ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / "tree" / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / "tree" / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder)]
    succeed([*pip, str(folder / "tree")], folder)
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_the_packages(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in ("deskpro_jax", "data_prep"):
        for path in (runs.ROOT / package).rglob("*"):
            if path.is_file() and "__pycache__" not in path.parts:
                assert path.relative_to(runs.ROOT).as_posix() in names
    for config in (*files.names(), "base", "small", "variants"):
        assert f"deskpro_jax/configs/{config}.py" in names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"deskpro_jax", "data_prep"}


@pytest.mark.slow
def test_an_installed_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "venv"
    venv.create(home, with_pip=False, symlinks=True)
    python = str(home / "bin" / "python")
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home), "platbase": str(home)}))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    succeed([*pip, str(wheel)], tmp_path)
    # Dependencies are those of the tests; a .pth file adds their folder, but none of the packages they have in editing.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    work = tmp_path / "work"
    (work / "configs").mkdir(parents=True)
    (work / "configs" / "__init__.py").write_text("raise ImportError('the configs package of somebody else')\n")
    deskpro = str(home / "bin" / "deskpro")

    assert succeed([deskpro, "--version"], work).stdout == f"deskpro {deskpro_jax.__version__}\n"
    told = json.loads(succeed([deskpro, "version", "--json"], work).stdout)
    assert Path(told["installed in"]).is_relative_to(home)
    assert told["commit"] is None
    assert "usage: deskpro train" in succeed([deskpro, "train", "--help"], work).stdout

    load = (
        "from absl import app; from deskpro_jax import main, experiment\n"
        "def show(config, folder, mode, **_): print(config.data.name, config.train.epochs, folder, mode)\n"
        "experiment.run = show\n"
        "main.command()"
    )
    for given in ("configs/celeb.py:debug", "celeb:debug"):
        flags = [f"--config={given}", "--config.train.epochs=7", "--workdir=w"]
        assert succeed([python, "-c", load, *flags], work).stdout == "celeb 7 w train\n"
    page = (
        "import data_prep.reviewing.page as p, pathlib as l; print(len([*l.Path(p.__file__).parent.rglob('*.html')]))"
    )
    assert succeed([python, "-c", page], work).stdout == "1\n"
    assert [path.name for path in work.iterdir()] == ["configs"]
