"""Whatever ends a command, it ends with one line and the right exit code."""

from __future__ import annotations

import subprocess
import sys

import pytest

import runs
from deskpro_jax.errors import InputError, MissingInputError, RunError, Stopped, end_command


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("field x is 1."), 2, "error: field x is 1."),
        (MissingInputError("no file at a."), 2, "error: no file at a."),
        (RunError("the loss is nan."), 1, "error: the loss is nan."),
        (OSError(28, "No space left on device"), 1, "error: [Errno 28] No space left on device"),
        (Stopped("SIGTERM: stopped."), 1, "SIGTERM: stopped."),
        (KeyboardInterrupt(), 1, "gone."),
    ],
)
def test_an_error_ends_with_its_line_and_code(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        raise error

    assert end_command(work, "gone.") == code
    assert capsys.readouterr() == ("", f"{line}\n")


def test_work_says_its_own_code_and_a_stop_may_be_no_failure() -> None:
    def stop() -> None:
        raise Stopped("saved.")

    assert end_command(lambda: None) == 0
    assert end_command(lambda: 3) == 3
    assert end_command(stop, stopped=0) == 0


def test_a_mistake_in_the_code_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        end_command(lambda: 1 // 0)


def test_a_reader_that_has_enough_is_no_error() -> None:
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
