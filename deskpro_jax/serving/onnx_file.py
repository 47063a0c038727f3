"""A program as an ONNX file, compared in onnxruntime with the flax network before it is written."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from deskpro_jax.errors import RunError, missing_package
from deskpro_jax.serving.program import Program, embedding_function

TOLERANCE = 1e-4  # of a number in an embedding, whose parts have unit length
BATCHES = (1, 5)


def serialise(program: Program) -> tuple[bytes, dict[str, object]]:
    """Returns the program as the bytes of an ONNX file, and what a reader of the file wants to know about it.

    Raises:
        InputError: the packages of the extra "onnx" are not installed, or a network uses an operation that has no form
            in ONNX.
        RunError: onnxruntime computes something else than flax.
    """
    try:
        import onnx
        import onnxruntime

        from deskpro_jax.serving import onnx_graph, onnx_osnet
    except ImportError as error:
        raise missing_package("an ONNX file", "onnx", error) from error
    model = onnx_osnet.build(program) if onnx_osnet.knows(program) else onnx_graph.build(program)
    onnx.checker.check_model(model, full_check=True)
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    difference = _difference(program, session)
    if not difference < TOLERANCE:
        raise RunError(f"the ONNX network differs from flax's by {difference:.2g}; expected less than {TOLERANCE}.")
    facts = {"opset": onnx_graph.OPSET, "difference_from_flax": difference, "checked_batches": list(BATCHES)}
    return content, facts


def _difference(program: Program, session: Any) -> float:
    """Returns the largest difference over `BATCHES`; flax is compiled once, for the largest."""
    arguments = example(program, max(BATCHES))
    with jax.default_matmul_precision("highest"):  # flax in full float32 on accelerators too
        expected = np.asarray(jax.jit(embedding_function(program))(*arguments.values()))
    worst = 0.0
    for batch in BATCHES:
        embeddings = session.run(["embeddings"], {name: value[:batch] for name, value in arguments.items()})[0]
        worst = max(worst, float(np.abs(embeddings - expected[:batch]).max()))
    return worst


def example(program: Program, batch: int) -> dict[str, np.ndarray]:
    """Returns random arguments of a program by name; every third image has no face."""
    rng = np.random.default_rng(batch)
    arguments: dict[str, np.ndarray] = {}
    for entry in program.inputs:
        if entry.dtype == "bool":
            arguments[entry.name] = np.arange(batch) % 3 != 2
        elif entry.dtype == "uint8":
            arguments[entry.name] = rng.integers(0, 256, (batch, *entry.shape), np.uint8)
        else:
            arguments[entry.name] = rng.standard_normal((batch, *entry.shape), np.float32)
    return arguments
