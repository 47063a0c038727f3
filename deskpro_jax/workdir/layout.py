"""A run's folder: its configuration written once, refused when it changes, its results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import ml_collections

from deskpro_jax.config.fields import FREE, NETWORK, STREAMS, differences, flatten
from deskpro_jax.configs import base
from deskpro_jax.errors import InputError
from deskpro_jax.storage.files import read_json, remove_temporaries, require_json, write_json

CONFIG_FILE = "config.json"
RESULTS_FILE = "results.json"


def results_path(folder: Path, dataset: str, checksums: Mapping[str, str]) -> tuple[Path, str | None]:
    """Returns where the results of an evaluation go, so that those of another dataset never replace a run's own.

    Args:
        folder: the workdir.
        dataset: name of the dataset that was evaluated.
        checksums: of its splits, which tell two datasets of one name apart.

    Returns:
        `results.json` for the dataset that the workdir was begun with (converted weights: was first evaluated on),
        otherwise `results-on-DATASET.json`, with the first digits of the checksums for other content of the same name;
        and the name of the workdir's own dataset, None where it was not trained here.
    """
    own, before = read_json(folder / CONFIG_FILE), read_json(folder / RESULTS_FILE) or {}
    name = dataset.replace(":", "-")  # "module:name" of a fork, which not every file system takes
    trained_on = None if own is None else own.get("data", {}).get("name")
    first = trained_on or before.get("dataset")
    if first is not None and first != dataset:
        return folder / f"results-on-{name}.json", trained_on
    known = before.get("checksums")
    if known and checksums and known != checksums:
        digest = hashlib.sha256(json.dumps(dict(checksums), sort_keys=True).encode()).hexdigest()
        return folder / f"results-on-{name}-{digest[:8]}.json", trained_on
    return folder / RESULTS_FILE, trained_on


def _changed(workdir: Path, config: ml_collections.ConfigDict, chosen: Callable[[str], bool]) -> str:
    """Returns the chosen fields that differ from those the workdir was begun with, a line each.

    Fields that came into being since then count as having had their defaults.
    """
    recorded = require_json(workdir / CONFIG_FILE, "remove it, or use another workdir")
    before = flatten(base.get_config()) | flatten(recorded)
    return differences(before, flatten(config), chosen)


def check_network(workdir: Path, config: ml_collections.ConfigDict) -> None:
    """Checks that the fields that decide what a trained network computes are those it was trained with.

    Raises:
        InputError: some differ; the message lists them with both values.
    """
    if not (workdir / CONFIG_FILE).exists():  # converted weights
        return
    listed = _changed(workdir, config, lambda name: name.startswith(NETWORK) and name not in STREAMS)
    if listed:
        raise InputError(f"{workdir} was trained with another configuration:{listed}\nGive these fields as they were.")


def settle_config(workdir: Path, config: ml_collections.ConfigDict, *, write: bool = True) -> None:
    """Writes the configuration into a new workdir, or checks that it is the one the workdir was begun with.

    A workdir without any checkpoint holds nothing that a configuration could contradict: it takes the new one, so that
    a command with a wrong value can be corrected and run again.

    Args:
        workdir: the run's folder.
        config: the configuration.
        write: whether this process writes (the first one).

    Raises:
        InputError: fields that decide the result differ; the message lists them with both values.
    """
    path = workdir / CONFIG_FILE
    if path.exists() and any(workdir.glob("*/checkpoints/[0-9]*")):
        listed = _changed(workdir, config, lambda name: not name.startswith(FREE))
        if listed:
            raise InputError(
                f"{workdir} was begun with another configuration:{listed}\n"
                "Use another workdir, or the fields as they were."
            )
    if write:
        workdir.mkdir(parents=True, exist_ok=True)
        for folder in (workdir, *(path for path in workdir.iterdir() if path.is_dir())):
            remove_temporaries(folder)
        write_json(path, json.loads(config.to_json_best_effort()))
