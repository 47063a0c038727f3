"""Sphinx configuration: `sphinx-build -W --keep-going -b html docs docs/_build` makes the documentation."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import flax.linen as nn  # noqa: E402
from sphinx.util.inspect import stringify_signature  # noqa: E402

import deskpro_jax  # noqa: E402
from deskpro_jax.cli.commands import COMMANDS  # noqa: E402
from deskpro_jax.config import files  # noqa: E402

project = "deskpro_jax"
author = "the authors of deskpro_jax"
release = version = deskpro_jax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "_generated", "examples", "jupyter_execute"]
nb_execution_mode = "off"  # the tests run the notebook
nb_merge_streams = True
myst_heading_anchors = 3

napoleon_use_ivar = True  # attributes are part of their class and no entries of their own
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "exclude-members": "name, parent, scope, setup, dtype"}
add_module_names = False
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries = False

html_theme = "furo"
html_title = f"deskpro_jax {version}"
html_static_path = ["_static"]
html_css_files = ["wide_tables.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False


def _write_commands(app: Any) -> None:
    """Writes what every command says of itself, to be included in the page of the commands."""
    os.environ["COLUMNS"] = "92"
    parts = []
    for command in COMMANDS:
        with contextlib.suppress(ModuleNotFoundError), contextlib.redirect_stdout(io.StringIO()) as out:
            module = importlib.import_module(command.module)
            with contextlib.suppress(SystemExit):
                getattr(module, command.function)(["--help", *command.arguments])
            text = out.getvalue().replace(str(files.FOLDER), "configs").strip()
            parts.append(f"## {command.name}\n\n```text\n{text}\n```\n")
    folder = HERE / "_generated"
    folder.mkdir(exist_ok=True)
    (folder / "commands.md").write_text("\n".join(parts), encoding="utf-8")


def _signature_of_module(_app: Any, what: str, _name: str, found: Any, *_rest: Any) -> tuple[str, None] | None:
    """Returns the fields of a linen module without those that flax adds to each."""
    if what != "class" or not issubclass(found, nn.Module):
        return None
    signature = inspect.signature(found)
    own = [parameter for name, parameter in signature.parameters.items() if name not in ("parent", "name")]
    shown = stringify_signature(signature.replace(parameters=own, return_annotation=inspect.Signature.empty))
    return shown.replace("<class 'jax.numpy.float32'>", "float32"), None


def _skip_fields(_app: Any, _what: str, _name: str, found: Any, skip: bool, _options: Any) -> bool | None:
    """Leaves out fields of named tuples, which the text of their class explains."""
    return True if type(found).__name__ == "_tuplegetter" else None


def _drop_absent_pages(_app: Any, page: str, source: list[str]) -> None:
    """Leaves out of the table of contents what has no page yet."""
    if page == "index":
        lines = source[0].splitlines()
        there = (re.fullmatch(r"[\w/]+", line) is None or any(HERE.glob(f"{line}.*")) for line in lines)
        source[0] = "\n".join(line for line, keep in zip(lines, there, strict=True) if keep)


def setup(app: Any) -> None:
    """Connects what is made at build time."""
    app.connect("builder-inited", _write_commands)
    app.connect("source-read", _drop_absent_pages)
    app.connect("autodoc-process-signature", _signature_of_module)
    app.connect("autodoc-skip-member", _skip_fields)
