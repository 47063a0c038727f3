"""A bug report says what was installed, on which devices, and which networks and data it is about."""

from __future__ import annotations

import hashlib
import json
import platform
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import deskpro_jax
from deskpro_jax.cli import version
from deskpro_jax.workdir.networks import load_networks


def test_versions_and_devices_are_those_at_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert version.main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["deskpro_jax"] == deskpro_jax.__version__
    assert (found["python"], found["platform"]) == (platform.python_version(), platform.platform())
    assert (found["packages"]["jax"], found["packages"]["numpy"]) == (jax.__version__, np.__version__)
    assert {"jaxlib", "flax", "optax", "orbax-checkpoint"} <= {n for n, v in found["packages"].items() if v}
    assert len(found["devices"]) == jax.device_count()
    assert "checksums" not in found
    assert version.main([]) == 0
    text = capsys.readouterr().out
    assert f"  jax: {jax.__version__}\n" in text
    assert f"  0: {jax.devices()[0].platform}" in text


def test_a_checkout_tells_its_commit_and_an_installation_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deskpro_jax, "__file__", str(tmp_path / "deskpro_jax" / "__init__.py"))
    assert version.commit() is None
    (tmp_path / ".git").touch()  # not a repository after all
    assert version.commit() is None


def test_a_workdir_is_told_apart_by_its_checksums(untrained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert version.main([str(untrained), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["checksums"][str(untrained)]
    assert found["embedding"] == load_networks(untrained).checksum
    config = (untrained / "config.json").read_bytes()
    assert found["files"]["config.json"] == hashlib.sha256(config).hexdigest()
    assert len(found["files"]["student/checkpoints/7"]) == 64


def test_damage_is_told(untrained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(untrained, tmp_path / "copy"))
    largest = max((copy / "student/checkpoints/7").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    found = version.checksums(copy)
    assert "damaged: " in found["files"]["student/checkpoints/7"]
    assert found["embedding"] != version.checksums(untrained)["embedding"]


def test_a_file_that_is_no_network_has_a_checksum_all_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "notes.pth"
    file.write_bytes(b"no weights")
    assert version.main([str(file)]) == 0
    out = capsys.readouterr().out
    assert f"notes.pth: {hashlib.sha256(b'no weights').hexdigest()}" in out
    assert "embedding: none: " in out
    assert version.main([str(tmp_path / "absent")]) == 2
    assert "error: no file or folder at" in capsys.readouterr().err
