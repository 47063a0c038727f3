"""A program as one StableHLO file that only jax loads: any batch size, CPU, CUDA and TPU."""

from __future__ import annotations

import jax
from jax import export

from deskpro_jax.serving.program import Program, embedding_function

PLATFORMS = ("cpu", "cuda", "tpu")


def serialise(program: Program) -> tuple[bytes, dict[str, object]]:
    """Returns the program in the format of `jax.export`, and what a reader of the file wants to know about it.

    Reference: https://docs.jax.dev/en/latest/export/export.html (versions within half a year of each other load what
    the other wrote; the calling convention's version is in the description).
    """
    (batch,) = export.symbolic_shape("batch")
    arguments = [jax.ShapeDtypeStruct((batch, *entry.shape), entry.dtype) for entry in program.inputs]
    exported = export.export(jax.jit(embedding_function(program)), platforms=PLATFORMS)(*arguments)
    facts = {"platforms": list(PLATFORMS), "calling_convention_version": exported.calling_convention_version}
    return bytes(exported.serialize()), facts
