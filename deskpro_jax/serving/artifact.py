"""Writes a program and the JSON file that describes it, both or none."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import deskpro_jax
from deskpro_jax.data.load.augment import MEAN, STD
from deskpro_jax.errors import InputError
from deskpro_jax.serving import onnx_file, stablehlo
from deskpro_jax.serving.program import Program, read_program
from deskpro_jax.storage.files import check_new, write_files
from deskpro_jax.weights.opening import PLACES

FORMATS = {".stablehlo": stablehlo.serialise, ".onnx": onnx_file.serialise}  # by the ending of the file
_MEANINGS = {
    "uint8": "RGB, resized to this height and width with Pillow's {interpolation} filter; normalised inside",
    "float32": "RGB of that kind, divided by 255, minus `mean`, over `std`",
    "bool": "False where no face was found; whatever is in `face` then, its part of the embedding is zeros",
}


def export_program(folder: Path, target: Path, **choices: Any) -> dict[str, Any]:
    """Writes networks of a workdir as a program, and `<target>.json` beside it.

    Args:
        folder: a workdir that was trained or converted.
        target: a new file ending in one of `FORMATS`.
        choices: see `read_program`.

    Returns:
        What the JSON file says.

    Raises:
        InputError: the file is there, its ending is unknown, a package is missing, or a choice does not fit.
        MissingInputError: the workdir holds no checkpoints, or the target's folder is not there.
    """
    if target.suffix not in FORMATS:
        raise InputError(f"{target} ends in {target.suffix!r}; expected one of {', '.join(FORMATS)}.")
    beside = target.with_name(f"{target.name}.json")
    check_new(target, beside)
    program = read_program(folder, **choices)
    content, facts = FORMATS[target.suffix](program)
    described = {
        "file": target.name,
        "format": target.suffix.removeprefix("."),
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        **_interface(program),
        **facts,
        **_provenance(program),
    }
    write_files({beside: (json.dumps(described, indent=2) + "\n").encode(), target: content})
    return described


def _interface(program: Program) -> dict[str, Any]:
    inputs = [
        {
            "name": entry.name,
            "dtype": entry.dtype,
            "shape": ["batch", *entry.shape],
            "meaning": _MEANINGS[entry.dtype].format(interpolation=program.loaded.config.data.interpolation),
        }
        for entry in program.inputs
    ]
    parts = ", ".join(f"{len(stream.parts)} of {stream.name}" for stream in program.streams)
    meaning = f"parts of unit length: {parts}; compare by dot product over the number of parts that neither image lacks"
    if any(stream.weights for stream in program.streams):
        weights = [f"{w:g}" for stream in program.streams for w in stream.weights or (1.0,) * len(stream.parts)]
        meaning += f"; each part's product times its weight ({', '.join(weights)}), over the sum of weights"
    shape = ["batch", program.dimension]
    output = {"name": "embeddings", "dtype": "float32", "shape": shape, "meaning": meaning}
    normalisation = {"mean": [round(float(x), 3) for x in MEAN], "std": [round(float(x), 3) for x in STD]}
    return {"inputs": inputs, "outputs": [output], "flip": program.flip, **normalisation}


def _provenance(program: Program) -> dict[str, Any]:
    loaded, packages = program.loaded, ("jax", "flax")
    model, record = loaded.config.model, loaded.record
    roles = {place: role for role, place in PLACES.items()}
    converted_from = record.conversion if not record.trained else None
    return {
        "networks": [
            {
                "method": model.name,
                "role": roles.get((phase.name, stream.name), stream.name),
                "stream": stream.name,
                "backbone": model.backbone,
                "os_streams": model.streams,
                "attention": model.attention if stream.name == "body" else "none",
                "parts": list(stream.parts),
                "feature_dim": stream.dim,
                "step": phase.step(stream.name),
            }
            for phase in loaded.phases
            for stream in phase.network.streams
        ],
        "dataset": loaded.config.data.name if record.trained else None,
        "converted_from": converted_from and {name: converted_from[name] for name in ("source", "sha256")},
        "results": (record.results or {}).get("results"),
        "versions": {
            "deskpro_jax": deskpro_jax.__version__,
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
