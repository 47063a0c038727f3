"""Whatever ends a command, it ends with one line and the right exit code."""

from __future__ import annotations

import re
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
        (OSError(12, "Cannot allocate memory"), 1, "error: out of memory ([Errno 12] Cannot allocate memory): use a"),
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


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes.\n\nBufferAssign", "out of mem"),
        ("INTERNAL: Failed to allocate request: CUDA_ERROR_OUT_OF_MEMORY: out of memory", "out of memory"),
        ("std::bad_alloc", "out of memory"),
        ("INTERNAL: CUDNN_STATUS_ALLOC_FAILED", "out of memory"),
        ("INTERNAL: failed to get device: CUDA_ERROR_DEVICE_UNAVAILABLE: all CUDA-capable devices are busy", "the GPU"),
        ("INTERNAL: Failed to create cuBLAS handle: CUBLAS_STATUS_NOT_INITIALIZED", "the GPU cannot be used"),
        ("FAILED_PRECONDITION: DNN library initialization failed. Look at the errors above", "the GPU cannot be used"),
        ("jaxlib/gpu/solver_kernels.cc:45: operation gpusolverDnCreate(&handle) failed", "out of memory|the GPU"),
    ],
)
def test_too_little_memory_and_a_gpu_in_use_end_with_what_to_set(
    text: str, start: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def work() -> None:
        try:
            raise RuntimeError(text)
        except RuntimeError as error:
            raise ValueError("the step failed") from error

    assert end_command(work) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert re.match(f"error: ({start})", printed)
    assert "--batch" in printed
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION" in printed


def test_a_backend_that_jax_cannot_start_ends_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        raise RuntimeError("Unable to initialize backend 'cuda': FAILED_PRECONDITION: No visible GPU devices.")

    assert end_command(work) == 1
    assert "correct JAX_PLATFORMS" in capsys.readouterr().err


def test_work_returns_its_own_code_and_a_stop_need_not_be_a_failure() -> None:
    def stop() -> None:
        raise Stopped("saved.")

    assert end_command(lambda: None) == 0
    assert end_command(lambda: 3) == 3
    assert end_command(stop, stopped=0) == 0


def test_a_mistake_in_the_code_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        end_command(lambda: 1 // 0)
    for error in (RuntimeError("shapes differ"), ValueError("memory of two steps")):

        def work(error: Exception = error) -> None:
            raise error

        with pytest.raises(type(error)):
            end_command(work)


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
