"""Commands start with huge pages under large allocations, where that is for a process to choose."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from deskpro_jax import huge_pages

SCRIPT = """
import os, sys
from deskpro_jax.huge_pages import start_anew
start_anew()
print(os.getpid(), os.environ.get("GLIBC_TUNABLES"), sys.argv[1:])
"""


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A system with glibc whose huge pages are for processes to choose."""
    file = tmp_path / "enabled"
    file.write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "_SETTING", file)
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    return file


def test_the_wish_is_added_to_others(setting: Path) -> None:
    assert huge_pages.environment({"A": "b"}) == {"A": "b", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    found = huge_pages.environment({"GLIBC_TUNABLES": "glibc.malloc.check=1"})
    assert found == {"GLIBC_TUNABLES": "glibc.malloc.check=1:glibc.malloc.hugetlb=1"}


@pytest.mark.parametrize("value", ["glibc.malloc.hugetlb=0", "glibc.malloc.check=1:glibc.malloc.hugetlb=1"])
def test_what_the_user_chose_stays(value: str, setting: Path) -> None:
    assert huge_pages.environment({"GLIBC_TUNABLES": value}) is None


@pytest.mark.parametrize("text", ["[always] madvise never\n", "always madvise [never]\n", None])
def test_a_system_that_decides_itself_is_left_alone(text: str | None, setting: Path) -> None:
    setting.unlink() if text is None else setting.write_text(text)
    assert huge_pages.environment({}) is None


def test_another_c_library_is_left_alone(setting: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert huge_pages.environment({}) is None


def test_the_same_command_starts_anew_in_the_same_process_once() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    wanted = huge_pages.environment(environment)
    with subprocess.Popen(
        [sys.executable, "-c", SCRIPT, "--flag", "two words"], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    tunables = None if wanted is None else wanted["GLIBC_TUNABLES"]
    assert out == f"{process.pid} {tunables} ['--flag', 'two words']\n"
