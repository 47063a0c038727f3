"""Checks the fields of a configuration that say what is evaluated and how: `eval.*`."""

from __future__ import annotations

import ml_collections

from deskpro_jax.checkpoints.selection import REPORTS
from deskpro_jax.config import expect
from deskpro_jax.data.datasets.find import find_protocols
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation.ranking import AVERAGE_PRECISIONS
from deskpro_jax.evaluation.similarity import DISTANCES, MISSING_FACE


def check(config: ml_collections.ConfigDict) -> None:
    """Checks `eval.*`, and that the dataset of `data.name` has the protocols that are asked for.

    Raises:
        InputError: a field has a value that cannot be used; the message names it.
    """
    expect.integer(config, "eval.every", least=0)
    expect.integer(config, "eval.batch", least=1)
    expect.boolean(config, "eval.flip")
    expect.choice(config, "eval.missing_face", MISSING_FACE)
    expect.choice(config, "eval.distance", DISTANCES)
    expect.choice(config, "eval.average_precision", AVERAGE_PRECISIONS)
    names = expect.texts(config, "eval.protocols")
    find_protocols(config.data.name, names)
    both = {*expect.integers(config, "eval.junk_identities")} & {*expect.integers(config, "eval.distractor_identities")}
    if both:
        raise InputError(
            f"eval.junk_identities and eval.distractor_identities both list {min(both)}: junk images are ignored,"
            " distractors are not; leave it out of one of them."
        )
    expect.boolean(config, "eval.rerank")
    expect.integer(config, "eval.rerank_k1", least=1)
    expect.integer(config, "eval.rerank_k2", least=1)
    expect.number(config, "eval.rerank_lambda", least=0, most=1)
    expect.integer(config, "eval.rerank_memory", least=1)
    expect.boolean(config, "eval.baselines")
    expect.boolean(config, "eval.keep_embeddings")
    expect.choice(config, "eval.report", REPORTS)
