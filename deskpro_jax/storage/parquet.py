"""Opens Parquet files with pyarrow; an error says what to do where it is not installed."""

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
    """Yields a `pyarrow.parquet.ParquetFile`; an error while reading it becomes an InputError that names the file."""
    pa = require_pyarrow()
    try:
        with pa.parquet.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} is not a complete Parquet file ({error}): write it again.") from error
