"""Reads a configuration file with the fields that a command line sets, and explains what is wrong with either."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence

import ml_collections
from absl import flags
from ml_collections import config_flags

from deskpro_jax.config.files import find_config
from deskpro_jax.errors import InputError, MissingInputError


def read_config(path: str, overrides: Sequence[str] = ()) -> ml_collections.ConfigDict:
    """Reads a configuration as `deskpro train` does.

    Args:
        path: of the file, or an installed one's name, optionally with ":variant".
        overrides: flags like "--config.train.epochs=2".

    Raises:
        MissingInputError: there is no such file.
        InputError: the file cannot be run, a variant or field is unknown, or a value is of the wrong type.
    """
    path = find_config(path)
    values, arguments = flags.FlagValues(), ["read_config", f"--config={path}", *overrides]
    holder = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=arguments)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of how ml_collections imports the file
            values(arguments)
        return ml_collections.ConfigDict(holder.value)
    except Exception as error:  # the file is the user's code
        raise InputError(explain(error)) from error


def explain(error: Exception) -> str:
    """Returns in one line why flags and configuration cannot be used.

    Args:
        error: what parsing them raised: by absl, by ml_collections, or by the configuration file.
    """
    if isinstance(error, MissingInputError):
        return str(error)
    if isinstance(error, AttributeError):  # ml_collections wraps a KeyError: 'epoch'\nDid you mean "epochs" ...
        inner = error.args[0] if error.args else ""
        text = str(inner.args[0] if isinstance(inner, KeyError) and inner.args else inner)
        return f"the configuration has no field {' - '.join(text.splitlines())} (configs/base.py lists them all)"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    if isinstance(error, OSError):
        return f"--config cannot be read: {lines[-1]}"
    if not isinstance(error, flags.Error):
        return f"--config cannot be run: {type(error).__name__}: {' '.join(lines)}"
    if any(line.startswith("Traceback") for line in lines):  # raised while a configuration file ran
        return f"{lines[0].removesuffix('Error whilst parsing config file:')}{lines[-1].removeprefix('ValueError: ')}"
    text = " ".join(lines)
    missing = re.fullmatch(r"flag --(\w+)=None: .*must have a value other than None\.", text)
    return f"--{missing[1]} is missing: --help shows examples." if missing else text
