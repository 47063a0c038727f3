"""What a workdir or a weights file says of its networks: configuration, conversion, results, initial weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_collections

from deskpro_jax.config.fields import flatten
from deskpro_jax.configs import base
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.methods import osnet
from deskpro_jax.storage.files import read_json
from deskpro_jax.weights.opening import OpenedWeights
from deskpro_jax.workdir import layout

CONVERSION_FILE = "conversion.json"  # what `deskpro convert` leaves beside the networks
LEFT_OUT = "left_out.safetensors"  # what no variable holds, so that the way back is exact
START = "start.json"  # in a phase's folder: its pretrained initialisation
PREPROCESSING = "preprocessing"  # key of what is known of how images go in
# Settings of a file's or conversion's `preprocessing` -> fields of a configuration.
_PREPROCESSING = {
    "body_size": "data.body_size",
    "face_size": "data.face_size",
    "interpolation": "data.interpolation",
    "flip": "eval.flip",
    "missing_face": "eval.missing_face",
}


_SIZES = ("data.body_size", "data.face_size")


@dataclass(frozen=True)
class Record:
    """What is recorded beside networks.

    Attributes:
        config: the configuration that describes them: of the training, or made from what a conversion or file says.
        trained: whether they were trained in this workdir.
        sizes_known: whether the sizes of images are those of the training (True) or the method's defaults.
        conversion: `conversion.json`; None for networks that were trained here.
        results: `results.json`, None where the workdir was not evaluated.
        starts: `start.json` of each phase with a pretrained initialisation.
    """

    config: ml_collections.ConfigDict
    trained: bool
    sizes_known: bool
    conversion: dict[str, Any] | None = None
    results: dict[str, Any] | None = None
    starts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def family(self) -> str | None:
        """Family of the file that the networks came from, None where they were trained here."""
        return None if self.conversion is None else str(self.conversion.get("family"))

    @property
    def class_order(self) -> str:
        """How the classifiers count identities: as the file they came from, or by number."""
        return "number" if self.conversion is None else str(self.conversion.get("class_order", "text"))


def read_record(folder: Path) -> Record:
    """Reads what a workdir says of its networks.

    Args:
        folder: a workdir of a training or of converted weights.

    Raises:
        MissingInputError: it holds neither `config.json` nor `conversion.json`.
        InputError: one of its files cannot be used; the message names it.
    """
    path = folder / layout.CONFIG_FILE
    own, conversion = read_json(path), read_json(folder / CONVERSION_FILE)
    results = read_json(folder / layout.RESULTS_FILE)
    starts = {file.parent.name: start for file in folder.glob(f"*/{START}") if (start := read_json(file))}
    if own is not None:
        fields = flatten(own)
        for name in (*_SIZES, "model.backbone"):
            if name not in fields:
                raise InputError(f"{path} has no field {name}: restore the file that the training wrote.")
        config = _filled(path, fields)
        return Record(config, True, True, conversion, results, starts)
    if conversion is None:
        raise MissingInputError(
            f"no checkpoints in {folder}, or nothing that says what they are: expected {layout.CONFIG_FILE} of a"
            f" training or {CONVERSION_FILE} of converted weights. Correct the path, or restore the file."
        )
    source = folder / CONVERSION_FILE
    config, sizes_known = _converted(source, _fields(source, conversion), conversion.get(PREPROCESSING))
    return Record(config, False, sizes_known, conversion, results, starts)


def file_record(path: Path, opened: OpenedWeights) -> Record:
    """Returns the record of a weights file."""
    config, sizes_known = _converted(path, opened.fields, opened.preprocessing)
    conversion = {"family": opened.family, "class_order": opened.class_order}
    return Record(config, False, sizes_known, conversion)


def _fields(path: Path, conversion: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a conversion says of its networks, as fields; earlier versions recorded no model of an OSNet."""
    model = conversion.get("model")
    network = conversion.get("networks", {}).get("osnet")
    if model is None and network is not None:
        model = {name: network[name] for name in ("backbone", "feature_dim")}
        model |= {"name": "osnet", "streams": conversion["streams"], "body": True, "face": "none"}
    if not isinstance(model, Mapping):
        raise InputError(f"{path} does not say what its networks are (no 'model'): convert the weights again.")
    others = conversion.get("fields")
    own = {f"model.{name}": value for name, value in model.items()}
    return {**(others if isinstance(others, Mapping) else {}), **own}


def _converted(
    path: Path, fields: Mapping[str, Any], preprocessing: Mapping[str, Any] | None
) -> tuple[ml_collections.ConfigDict, bool]:
    own = {_PREPROCESSING[name]: value for name, value in (preprocessing or {}).items() if name in _PREPROCESSING}
    fields = {**fields, **own}
    sizes_known = "data.body_size" in fields
    if fields.get("model.name") == "osnet" and not sizes_known:
        fields |= {"data.body_size": osnet.BODY_SIZE, "eval.flip": False}
    return _filled(path, fields), sizes_known


def _filled(path: Path, fields: Mapping[str, Any]) -> ml_collections.ConfigDict:
    """Returns a whole configuration: the given fields by dotted name, and defaults for fields that are newer."""
    config = base.get_config().unlock()
    for name, value in fields.items():
        group: Any = config
        *groups, last = name.split(".")
        for part in groups:
            if part not in group:
                group[part] = ml_collections.ConfigDict()
            group = group[part]
        try:
            group[last] = _size(path, name, value) if name in _SIZES else _sequence(value)
        except TypeError as error:  # another type than the default's
            raise InputError(f"{path}: {name} is {value!r}, which is not of the type of this field.") from error
    return config


def _sequence(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _size(path: Path, name: str, value: Any) -> tuple[int, int]:
    if not isinstance(value, (list, tuple)) or len(value) != 2 or not all(isinstance(v, int) and v > 0 for v in value):
        raise InputError(f"{path}: {name} is {value!r}; expected height and width in pixels.")
    return value[0], value[1]
