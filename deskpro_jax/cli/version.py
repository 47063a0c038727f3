"""Command line: versions, devices and checksums, for bug reports.

deskpro version runs/celeb --json
"""

from __future__ import annotations

import importlib.metadata
import json
import logging as std_logging
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import deskpro_jax
from deskpro_jax.cli.commands import command_parser
from deskpro_jax.errors import InputError, MissingInputError, RunError, end_command
from deskpro_jax.storage import files as files_
from deskpro_jax.storage.checksums import CHECKSUM_FILE, file_sha256, find_damage, has_checksums
from deskpro_jax.weights.pretrained import find_weights
from deskpro_jax.workdir import layout

# Packages that decide numbers, and optional ones that commands may miss.
PACKAGES = (
    *("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "pillow", "simplejpeg", "grain", "array_record"),
    *("tensorflow-datasets", "ml_collections", "safetensors"),
    *("pyarrow", "faiss-cpu", "onnx", "onnxruntime", "apache-beam"),
)
_WORKDIR_FILES = (layout.CONFIG_FILE, layout.RESULTS_FILE, "conversion.json")


def about() -> dict[str, Any]:
    """Returns versions, commit, platform and devices of the installation, for a bug report."""
    return {
        "deskpro_jax": deskpro_jax.__version__,
        "commit": commit(),
        "installed in": str(Path(deskpro_jax.__file__).parent),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _installed(name) for name in PACKAGES},
        "devices": devices(),
    }


def commit() -> str | None:
    """Returns the commit of the checkout that the package runs from, None where it runs from none or git is missing."""
    root = Path(deskpro_jax.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
        state = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + (" with changes" if state.stdout.strip() else "")


def devices() -> list[str]:
    """Returns the devices that JAX finds, or why it finds none."""
    try:
        import jax

        return [f"{device.id}: {device.platform}, {device.device_kind}" for device in jax.devices()]
    except Exception as error:  # whatever is wrong with a driver is what the report is about
        return [f"none: {error}"]


def checksums(target: Path) -> dict[str, Any]:
    """Returns checksums that identify a workdir or a weights file.

    Args:
        target: a workdir, a converted workdir or a weights file.

    Returns:
        `embedding` (`Embedder.checksum`, or why there is none) and `files`: path -> SHA-256 of the file; for each
        checkpoint that of its list of checksums, or what is damaged. For a workdir with results also
        `dataset`: the checksum of each split.

    Raises:
        MissingInputError: there is no such file or folder.
    """
    if not target.exists():
        raise MissingInputError(f"no file or folder at {target}: give a workdir or a weights file.")
    sums: dict[str, Any] = {"embedding": _embedding(target)}
    if target.is_file():
        return sums | {"files": {target.name: file_sha256(target)}}
    files = {name: file_sha256(target / name) for name in _WORKDIR_FILES if (target / name).is_file()}
    for step in sorted(target.glob("*/checkpoints/[0-9]*"), key=lambda path: (path.parts[-3], int(path.name))):
        files[step.relative_to(target).as_posix()] = _checkpoint(step)
    results = files_.read_json(target / layout.RESULTS_FILE) or {}
    return sums | {"files": files, "dataset": results.get("checksums", {})}


def _checkpoint(step: Path) -> str:
    if damage := find_damage(step):
        return f"damaged: {damage}"
    if not has_checksums(step):
        return "without checksums"
    return file_sha256(step / CHECKSUM_FILE)


def _embedding(target: Path) -> str:
    from deskpro_jax.workdir.networks import load_networks

    try:
        return load_networks(target).checksum
    except (InputError, MissingInputError, RunError) as error:
        return f"none: {error}"


def _installed(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def lines(values: dict[str, Any], indent: str = "") -> list[str]:
    """Returns values by name as lines of text, nested ones below their name."""
    text = []
    for name, value in values.items():
        if isinstance(value, dict):
            text += [f"{indent}{name}:", *lines(value, f"{indent}  ")]
        elif isinstance(value, list):
            text += [f"{indent}{name}:", *(f"{indent}  {item}" for item in value)]
        else:
            text.append(f"{indent}{name}: {'not known' if name == 'commit' and value is None else value or 'none'}")
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints versions, devices, and the checksums of a workdir or weights file; returns the exit code."""
    parser = command_parser("version", main.__doc__)
    parser.add_argument(
        "target",
        nargs="?",
        type=Path,
        metavar="WORKDIR|FILE|pretrained:NAME",
        help="print its checksums as well",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    std_logging.getLogger("absl").setLevel(std_logging.WARNING)

    def report() -> None:
        sums = {} if options.target is None else {str(options.target): checksums(find_weights(options.target))}
        values = about() | ({"checksums": sums} if sums else {})
        print(json.dumps(values, indent=2) if options.json else "\n".join(lines(values)))

    return end_command(report)


if __name__ == "__main__":
    raise SystemExit(main())
