"""Opens Parquet files: pyarrow where it is installed, and an error that says what to do where not."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deskpro_jax.errors import InputError, missing_package


def require_pyarrow() -> Any:
    """Returns the module pyarrow with its Parquet reader and writer.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_package("a Parquet file", "embed", error) from error
    return pyarrow


@contextlib.contextmanager
def open_parquet(path: Path) -> Iterator[Any]:
    """Gives a `pyarrow.parquet.ParquetFile`; what goes wrong while reading it becomes an InputError with its name."""
    pa = require_pyarrow()
    try:
        with pa.parquet.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is no whole Parquet file ({error}): write it again.") from error
