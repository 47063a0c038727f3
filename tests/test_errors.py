"""Whatever ends a command, it ends with one line and the right exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest

import runs
from deskpro_jax.errors import InputError, MissingInputError, RunError, Stopped, end_command, missing_package


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("field x is 1."), 2, "error: field x is 1."),
        (MissingInputError("no file at a."), 2, "error: no file at a."),
        (RunError("the loss is nan."), 1, "error: the loss is nan."),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device"),
        (Stopped("SIGTERM: stopped."), 1, "SIGTERM: stopped."),
        (KeyboardInterrupt(), 1, "gone."),
        (MemoryError("cannot allocate 3 GB"), 1, "error: out of memory (cannot allocate 3 GB): use a smaller batch,"),
        (RuntimeError("RESOURCE_EXHAUSTED: 3 GB\ntrace"), 1, "error: out of memory (RESOURCE_EXHAUSTED: 3 GB): use a"),
    ],
)
def test_an_error_ends_with_its_line_and_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    assert end_command(work, "gone.") == code
    out, printed = capsys.readouterr()
    assert (out, printed.count("\n")) == ("", 1)
    assert printed.startswith(line)


def test_work_returns_its_own_code_and_a_stop_need_not_be_a_failure() -> None:
    def stop() -> None:
        raise Stopped("saved.")

    assert end_command(lambda: None) == 0
    assert end_command(lambda: 3) == 3
    assert end_command(stop, stopped=0) == 0


def test_a_mistake_in_the_code_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        end_command(lambda: 1 // 0)


def test_a_missing_package_is_an_error_that_says_how_to_install_it() -> None:
    error = missing_package("the report", "report", ModuleNotFoundError("No module named 'jinja2'", name="jinja2"))
    assert str(error) == "the report needs jinja2: pip install 'deskpro_jax[report]'"
    broken = missing_package("the report", "report", ImportError("libz.so is missing"))
    assert str(broken) == "the report cannot import a package (libz.so is missing): pip install 'deskpro_jax[report]'"


def test_a_reader_that_closes_the_pipe_is_not_an_error() -> None:
    script = "from deskpro_jax.errors import end_command\nend_command(lambda: print('x\\n' * 100000))"
    writer = subprocess.Popen(
        [sys.executable, "-c", script], cwd=runs.ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr.read() == ""
    writer.wait(60)
    writer.stderr.close()
