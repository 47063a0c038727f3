"""A further term of the loss: embeddings of the body stream spread over the sphere.

deskpro train --config docs/examples/new_loss.py --workdir runs/new_loss
"""

import jax.numpy as jnp

from deskpro_jax.configs import synthetic


def spread(outputs, intermediates, inputs):
    """Returns 0.1 times the mean squared cosine between body embeddings of different people (a scalar)."""
    embeddings = outputs["body"]["embeddings"]  # [7, batch, dim]
    unit = embeddings / jnp.linalg.norm(embeddings, axis=-1, keepdims=True).clip(1e-6)
    others = inputs["identity"][:, None] != inputs["identity"][None]
    cosine = jnp.einsum("pid,pjd->pij", unit, unit)
    return 0.1 * jnp.mean(jnp.square(cosine) * others)


def get_config(variant=None):
    """Returns the configuration: the synthetic dataset, the body stream, the added term."""
    config = synthetic.get_config(f"csa,{variant}" if variant else "csa")
    config.loss.extra = ("new_loss:spread",)
    return config
