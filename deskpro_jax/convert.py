"""Command line: published weights into a workdir, a workdir's networks into safetensors.

python -m deskpro_jax.convert osnet_x1_0_imagenet.pth --to weights/osnet
python -m deskpro_jax.convert runs/celeb --to celeb.safetensors
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import json
import logging as std_logging
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from deskpro_jax import workdir
from deskpro_jax.checkpoint import CheckpointStore
from deskpro_jax.errors import InputError, MissingInputError, RunError, exit_code
from deskpro_jax.models.attention import FORMS
from deskpro_jax.models.osnet import STREAM_CHOICES
from deskpro_jax.weights.export import LEFT_OUT, PLACES, PREPROCESSING, RECORD, export_weights, versions
from deskpro_jax.weights.families import FAMILIES, ROLES
from deskpro_jax.weights.load import Loaded
from deskpro_jax.weights.networks import Opened, open_networks


def import_weights(
    source: Path,
    folder: Path,
    *,
    family: str | None = None,
    role: str | None = None,
    os_streams: str | None = None,
    attention: str | None = None,
    identities: int | None = None,
    dont_load: Sequence[str] = (),
) -> dict[str, Any]:
    """Writes the networks of a weights file as checkpoints of a workdir, step 0.

    Args:
        source: a PyTorch or safetensors file of a known family.
        folder: new or empty; gets `student/` (face student, body), `teacher/` or `osnet/` with their `checkpoints/`,
            `conversion.json`, and `left_out.safetensors` with the tensors that no variable holds. On failure nothing.
        family: what the file must be; None takes what its names say.
        role: what a network is whose names do not say so: "body" (also the default for LightMBN), "student", "teacher".
        os_streams: OSBlock streams; None for those the file was trained with.
        attention: form of CSA that the body network must have.
        identities: of new classifiers; None keeps the file's.
        dont_load: regular expressions for names of tensors to leave out.

    Returns:
        The content of `conversion.json`.

    Raises:
        InputError: the file is unusable, of another family, does not fit, or `folder` holds something.
        MissingInputError: there is no such file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there and not empty: give a new folder.")
    found = open_networks(
        source, family=family, role=role, os_streams=os_streams, identities=identities, dont_load=dont_load
    )
    loaded = found.loaded
    _check_attention(source, loaded, attention)
    record = _record(source, found)
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        for phase, state in _states(loaded).items():
            with CheckpointStore(partial / phase / "checkpoints", best_metric=None, asynchronous=False) as store:
                store.save(0, jax.tree.map(jnp.asarray, state), data={"source": source.name}, wait=True)
        if loaded.left_out:
            (partial / LEFT_OUT).write_bytes(safetensors.numpy.save(_contiguous(loaded.left_out)))
        workdir.write_json(partial / RECORD, record)
        if folder.exists():
            folder.rmdir()
        partial.replace(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return record


def _contiguous(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(value).reshape(value.shape) for name, value in tensors.items()}


def _check_attention(source: Path, loaded: Loaded, wanted: str | None) -> None:
    for stream in loaded.streams:
        if wanted is not None and stream.role == "body" and stream.attention != wanted:
            raise InputError(
                f"{source}: the body network's CSA is of the form {stream.attention!r}, not {wanted!r}: correct"
                " --attention."
            )


def _states(loaded: Loaded) -> dict[str, dict[str, Any]]:
    states: dict[str, dict[str, Any]] = {}
    for role, variables in loaded.variables.items():
        phase, module = PLACES[role]
        state = states.setdefault(phase, {"params": {}, "batch_stats": {}})
        for collection, tree in variables.items():
            state[collection].update({module: tree} if module else tree)
    return states


def _record(source: Path, found: Opened) -> dict[str, Any]:
    family, loaded = found.family, found.loaded
    networks = {stream.role: asdict(stream) for stream in loaded.streams}
    body = next((s for s in loaded.streams if s.role == "body"), None)
    face = "student" if "student" in networks else "none"
    model = {
        "backbone": loaded.streams[0].backbone,
        "streams": loaded.os_streams,
        "attention": body.attention if body else "none",
        "feature_dim": loaded.streams[0].feature_dim,
        "body": body is not None,
        "face": "teacher" if set(networks) == {"teacher"} else face,
    }
    return {
        "source": source.name,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "bytes": source.stat().st_size,
        "format": found.format,
        "family": family,
        "streams": loaded.os_streams,
        "networks": networks,
        "notes": loaded.notes,
        "model": None if family == "osnet" else model,
        PREPROCESSING: json.loads(found.metadata.get(PREPROCESSING, "null")),
        "versions": versions(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts published weights into a workdir, or a workdir's networks into safetensors; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m deskpro_jax.convert", description=main.__doc__)
    parser.add_argument("source", type=Path, help="a PyTorch or safetensors file, or a workdir")
    parser.add_argument("--to", type=Path, required=True, help="new folder; FILE.safetensors from a workdir")
    parser.add_argument("--family", choices=FAMILIES, help="what the file must be, or whose names to write")
    parser.add_argument("--as", dest="role", choices=ROLES, help="which network it is, where the names do not say")
    parser.add_argument("--streams", choices=STREAM_CHOICES, help="OSBlock streams, where the file does not show them")
    parser.add_argument("--attention", choices=(*FORMS, "none"), help="form of CSA that the body network must have")
    parser.add_argument("--identities", type=int, help="size of new classifiers (default: the file's own are kept)")
    parser.add_argument(
        "--dont-load", action="append", default=[], metavar="REGEX", help="names of tensors to leave out"
    )
    parser.add_argument("--report", choices=("last", "validation"), default="last", help="which checkpoint to export")
    options = parser.parse_args(arguments)
    std_logging.getLogger("absl").setLevel(std_logging.WARNING)
    try:
        if options.identities is not None and options.identities < 1:
            raise InputError(f"--identities is {options.identities}; expected at least 1.")
        if options.source.is_dir():
            if options.to.suffix != ".safetensors":
                raise InputError(f"{options.source} is a workdir; --to takes FILE.safetensors then, not {options.to}.")
            steps = export_weights(options.source, options.to, family=options.family, report=options.report)
            print(f"{options.to}: {', '.join(f'{phase} of step {step}' for phase, step in steps.items())}")
            return 0
        if options.to.suffix == ".safetensors":
            raise InputError(f"{options.source} is a file; --to takes a new folder then. Convert that to {options.to}.")
        record = import_weights(
            options.source,
            options.to,
            family=options.family,
            role=options.role,
            os_streams=options.streams,
            attention=options.attention,
            identities=options.identities,
            dont_load=options.dont_load,
        )
    except (InputError, MissingInputError, RunError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    for note in record["notes"]:
        print(f"note: {note}")
    print(f"{options.to}: {record['family']}, {', '.join(record['networks'])}, streams {record['streams']}")
    if record["model"]:
        print(" ".join(f"--config.model.{name}={value}" for name, value in record["model"].items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
