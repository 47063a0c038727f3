"""Runs the shards of a build on Apache Beam: on processes of this machine, or on whatever Beam runs on.

All workers must see the raw files and the output folder under the same paths. Each shard is one element: what it
holds and in which order was decided before, so that the bytes are those of a build on one machine.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from deskpro_jax.data.build.image_sources import ImageSource, PartsFormat
from deskpro_jax.data.build.shards import Shard, write_shard
from deskpro_jax.data.build.write_shards import Runner
from deskpro_jax.errors import RunError, missing_package
from deskpro_jax.storage.files import require_json


def runner(options: Sequence[str] = (), workers: int = 0) -> Runner:
    """Returns a function that writes shards on Beam.

    Args:
        options: options of the pipeline, each NAME=VALUE or NAME; without "runner", processes of this machine.
        workers: how many of these; 0 is one.

    Raises:
        InputError: Apache Beam is not installed.
    """
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
        from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    except ImportError as error:
        raise missing_package("--runner beam", "beam", error) from error
    flags = [f"--{option.lstrip('-')}" for option in options]
    here = not any(flag.startswith("--runner") for flag in flags)
    if here:
        flags += ["--direct_running_mode=multi_processing", f"--direct_num_workers={max(1, workers)}"]

    def run(shards: Sequence[Shard]) -> None:
        plans = [_save(shard) for shard in shards]  # a pipeline with thousands of paths in it is too large for some
        try:
            with apache_beam.Pipeline(FnApiRunner() if here else None, options=PipelineOptions(flags)) as pipeline:
                _ = (
                    pipeline
                    | "plans" >> apache_beam.Create(plans)
                    | "spread" >> apache_beam.Reshuffle()
                    | "write" >> apache_beam.Map(write_planned)
                )
        except Exception as error:  # whatever the runner raises
            text = f"the Beam pipeline failed ({type(error).__name__}: {error}); finished shards are kept"
            raise RunError(text) from error

    return run


def write_planned(plan: str) -> int:
    """Writes the shard of a plan that `runner` saved; returns how many images it holds."""
    stored = require_json(Path(plan))
    stored["sources"] = tuple(ImageSource(**source) for source in stored["sources"])
    stored["parts_format"] = PartsFormat(**stored["parts_format"])
    return write_shard(Shard(**stored)).images


def _save(shard: Shard) -> str:
    plan = shard.records.with_suffix(".plan")
    plan.write_text(json.dumps(dataclasses.asdict(shard)))
    return str(plan)
