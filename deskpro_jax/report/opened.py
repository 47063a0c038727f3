"""Opens what a workdir's pictures are made of: its networks, the query and gallery of a dataset, their embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np

from deskpro_jax.config import fields as fields_
from deskpro_jax.configs import base
from deskpro_jax.data import opening
from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.data.load import dataset
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.evaluation import evaluate, kept_embeddings, scoring
from deskpro_jax.evaluation.protocols import Protocol
from deskpro_jax.report.record import Record
from deskpro_jax.runtime import sharding
from deskpro_jax.runtime.compilation import use_cache_of
from deskpro_jax.runtime.progress import Progress
from deskpro_jax.workdir.networks import LoadedNetworks, load_networks

_READING = ("data.", "eval.", "seed")  # fields of a run that decide how its networks are shown images
_NO_PERSON = ("eval.junk_identities", "eval.distractor_identities")  # of a dataset: as it was evaluated last


@dataclass(frozen=True)
class Opened:
    """Networks, and the images that they are shown."""

    trained: LoadedNetworks
    config: ml_collections.ConfigDict
    query: ReIDSplit
    gallery: ReIDSplit
    protocol: Protocol
    note: str  # what is not as the configuration says; "" where all is


def open_networks(record: Record) -> tuple[LoadedNetworks, str]:
    """Opens the networks of a workdir: those of its configuration, or only the teacher while there is no student.

    Args:
        record: of the workdir.

    Returns:
        The networks, and what is missing of those of the configuration.

    Raises:
        InputError: a checkpoint does not hold what the configuration says.
        MissingInputError: there is no checkpoint.
    """
    use_cache_of(record.folder)
    only_teacher = set(record.steps) == {"teacher"} and record.field("model.body") is not None
    if only_teacher and (record.field("model.body") or record.field("model.face") != "teacher"):
        teacher = load_networks(record.folder, face="teacher", body=False)
        return teacher, "the student phase has no checkpoint yet: what follows is the teacher's, on restored faces"
    return load_networks(record.folder), ""


def open_data(
    record: Record, trained: LoadedNetworks, note: str, *, name: str | None, data_dir: str | None, protocol: str | None
) -> Opened:
    """Opens query and gallery of a dataset, and chooses the protocol.

    Args:
        record: of the workdir.
        trained: its networks.
        note: what is missing of them.
        name: of the dataset; None for the run's own, and with converted weights for the one of `results.json`.
        data_dir: where datasets are kept; None for where the run had them.
        protocol: name of a protocol; None for the dataset's first that its labels allow.

    Raises:
        InputError: nothing says which dataset, or the protocol cannot be applied.
        MissingInputError: the dataset is not built.
    """
    config = _config(record, trained, name)
    if data_dir is not None:
        config.data.data_dir = data_dir
    if protocol is not None:
        config.eval.protocols = (protocol,)
    where = opening.data_folder(config, record.folder)
    try:
        query, gallery = (dataset.load(config.data.name, where, split) for split in ("query", "gallery"))
    except MissingInputError as error:
        raise MissingInputError(f"{error} (say where datasets are with --data-dir)") from error
    query, gallery = opening.mark_test(config, query, gallery)
    chosen = scoring.choose_protocols(config, (query, gallery))
    return Opened(trained, config, query, gallery, chosen.protocols[0], note)


def _config(record: Record, trained: LoadedNetworks, name: str | None) -> ml_collections.ConfigDict:
    """Returns the configuration with which the networks are shown the images of a dataset."""
    own: dict[str, Any] = record.config or (record.own_results or {}).get("config") or {}
    config = base.get_config()
    known, fields = fields_.flatten(config), fields_.flatten(own)
    chosen = {n: v for n, v in fields.items() if n in known and n.startswith(_READING)}
    try:
        for field, value in chosen.items():
            config.update_from_flattened_dict({field: tuple(value) if isinstance(value, list) else value})
    except (TypeError, ValueError) as error:
        raise InputError(f"{record.folder}: its configuration has an unusable field {field}: {error}") from error
    if "data.name" not in fields and name is None:
        raise InputError(
            "nothing says on which dataset: name a built one with --dataset NAME --data-dir DIR, or evaluate the"
            " workdir first"
        )
    if name is not None and name != fields.get("data.name"):
        find_dataset(name, "--dataset")
        config.data.name, config.data.data_dir = name, ""
        config.data.clothing, config.eval.protocols = (), ()
        config.update_from_flattened_dict(dict.fromkeys(_NO_PERSON, ()))
    results = next((found for found in record.results.values() if found.get("dataset") == config.data.name), {})
    evaluated = fields_.flatten(results.get("config") or {})
    config.update_from_flattened_dict({name: tuple(evaluated[name]) for name in _NO_PERSON if name in evaluated})
    config.data.body_size, config.data.face_size = trained.sizes["body"], trained.sizes["face"]
    config.data.workers, config.mesh.data = 0, -1
    return config


def read_kept(opened: Opened, workdir: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Reads the embeddings of query and gallery that the last evaluation kept.

    Args:
        opened: networks and images.
        workdir: of the networks.

    Returns:
        [images, dimension] each; None where none of these networks, images and settings are kept.
    """
    trained = opened.trained
    origin = kept_embeddings.origin_of(
        opened.config.data.name,
        (opened.query, opened.gallery),
        trained.variables,
        images={field for network in trained.networks for field in network.images},
        sizes={"body_size": trained.sizes["body"], "face_size": trained.sizes["face"]},
        flip=bool(trained.config.eval.flip),
        dtype=str(trained.config.model.dtype),
        distance=opened.config.eval.distance,
    )
    return kept_embeddings.read(workdir, origin)


def embed(opened: Opened) -> tuple[np.ndarray, np.ndarray]:
    """Embeds query and gallery as evaluation does, with a progress line.

    Args:
        opened: networks and images.

    Returns:
        Embeddings [queries, dimension] and [gallery images, dimension], float32.
    """
    trained, config = opened.trained, opened.config
    mesh = sharding.make_mesh(config)
    variables = [sharding.put_replicated(mesh, values) for values in trained.variables]
    compute = evaluate.make_embed(trained.networks, bool(trained.config.eval.flip), mesh, config.eval.distance)
    fields = tuple(dict.fromkeys(field for network in trained.networks for field in network.images))
    total = len(opened.query) + len(opened.gallery)
    with Progress(total, "embedding query and gallery") as progress:

        def counted(values: Any, batch: Any) -> Any:
            progress.advance(steps=int(np.count_nonzero(batch["valid"])))
            return compute(values, batch)

        query, gallery = (
            evaluate.embed_split(counted, variables, split, config, mesh, fields)
            for split in (opened.query, opened.gallery)
        )
    return query, gallery
