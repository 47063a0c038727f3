"""A GPU that jax cannot use is not passed over in silence."""

from __future__ import annotations

from pathlib import Path

import jax
import pytest

from deskpro_jax.cli import embed, report, search
from deskpro_jax.runtime import accelerators


@pytest.fixture
def gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU, whose jax finds only the CPU."""
    (tmp_path / "nvidia0").touch()
    drivers = {str(tmp_path / "nvidia[0-9]*"): ("an NVIDIA GPU", "pip install it")}
    monkeypatch.setattr(accelerators, "_DRIVERS", drivers)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    monkeypatch.setattr(accelerators, "_platforms", lambda: None)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("gpu")
def test_a_gpu_that_jax_does_not_use_is_said() -> None:
    line = accelerators.unused_gpu() or ""
    assert line.startswith("this machine has an NVIDIA GPU that jax cannot use, so the CPU computes: install pip")
    assert "\n" not in line


@pytest.mark.usefixtures("gpu")
def test_nothing_is_said_where_the_cpu_was_chosen_or_the_gpu_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", value)
        assert accelerators.unused_gpu() is None
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert accelerators.unused_gpu() is not None
    monkeypatch.setattr(accelerators, "_platforms", lambda: "cpu")
    assert accelerators.unused_gpu() is None
    monkeypatch.setattr(accelerators, "_platforms", lambda: "cuda,cpu")
    assert accelerators.unused_gpu() is not None
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert accelerators.unused_gpu() is None


def test_nothing_is_said_and_jax_is_not_started_without_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerators, "_DRIVERS", {str(tmp_path / "nvidia*"): ("a GPU", "it")})
    monkeypatch.setattr(jax, "default_backend", lambda: pytest.fail("jax was started"))
    assert accelerators.unused_gpu() is None


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (embed.main, ["--checkpoint", "none", "--images", "none", "--out", "none.parquet"]),
        (search.main, ["--gallery", "none", "--query", "none.jpg", "--checkpoint", "none"]),
        (report.main, ["none"]),
    ],
)
def test_it_is_the_first_line_of_a_run(
    main: object,
    arguments: list[str],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2  # type: ignore[operator]
    first, *others = capsys.readouterr().err.splitlines()
    assert first.startswith("warning: this machine has an NVIDIA GPU that jax cannot use")
    assert not any("GPU" in line for line in others)
