"""Workdirs with networks of the debug size that nothing trained, for tests of what uses trained ones."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from jax import tree
from PIL import Image

import runs
from deskpro_jax import methods
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.data.load.dataset import ReIDSplit
from deskpro_jax.models import initialisers
from deskpro_jax.models.contract import image_sizes
from deskpro_jax.workdir import layout


def write_workdir(folder: Path, data_dir: Path, variant: str = "debug", seed: int = 0, **fields: Any) -> Path:
    """Writes a workdir as training leaves it, its networks as they were drawn."""
    config = runs.config(data_dir, variant, **fields)
    layout.settle_config(folder, config)
    for phase in methods.phases(config):
        if not phase.embeds:
            continue
        module = phase.network(config, runs.CLASSES).module
        variables = tree.map(jnp.asarray, initialisers.init_variables(module, seed, image_sizes(config)))
        with CheckpointStore(folder / phase.name / "checkpoints", best_metric="mAP", asynchronous=False) as store:
            store.save(7, variables, data={}, wait=True)
    return folder


def images(split: ReIDSplit, field: str = "body") -> list[Image.Image | None]:
    """Returns the decoded images of a split, None where there is none."""
    contents = [getattr(split[i], field) for i in range(len(split))]
    return [None if content is None else Image.open(io.BytesIO(content)) for content in contents]


def write_files(split: ReIDSplit, folder: Path) -> None:
    """Writes photos, faces and restored faces of a split as `photos/` and a prepared folder `prepared/`."""
    for i in range(len(split)):
        example = split[i]
        places = {
            "photos": (example.body, "jpg"),
            "prepared/face": (example.face, "png"),
            "prepared/restored_face": (example.restored_face, "png"),
        }
        for place, (content, suffix) in places.items():
            (folder / place).mkdir(parents=True, exist_ok=True)
            if content is not None:
                (folder / place / f"{example.image_id}.{suffix}").write_bytes(content)
