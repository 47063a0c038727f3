"""A method of one's own: a small network of flax's layers over the whole photo, trained to tell people apart.

deskpro train --config docs/examples/new_method.py --workdir runs/new_method
"""

import flax.linen as nn

from deskpro_jax.configs import synthetic
from deskpro_jax.extensions import Recipe, StreamSpec, identity_terms

DIM = 64


class SmallNetwork(nn.Module):
    """Three strided convolutions, global average pooling, an embedding and a classifier."""

    num_classes: int

    @nn.compact
    def __call__(self, inputs, *, train=False):
        """Maps photos [batch, height, width, 3] to the outputs and maps of the stream "body"."""
        x = inputs["body"]
        for width in (16, 32, 64):
            x = nn.relu(nn.GroupNorm(num_groups=8)(nn.Conv(width, (3, 3), strides=2)(x)))
        pooled = nn.Dropout(0.1, deterministic=not train)(x.mean((1, 2)))
        features = nn.Dense(DIM, name="embedding")(pooled)[None]  # one part: [1, batch, DIM]
        logits = nn.Dense(self.num_classes, name="classifier")(features)
        return {"body": {"logits": logits, "features": features, "embeddings": features}}, {"body": {"map": x}}


def build(config, counts):
    """Returns the module for so many identities."""
    return SmallNetwork(counts.identities)


def streams(config):
    """Returns the one stream: it reads the photo, and its only part takes the triplet loss."""
    return (StreamSpec("body", "body", ("global",), (0,), DIM),)


def recipe(config):
    """Returns the recipe: cross-entropy and triplet loss."""
    return Recipe(tuple(identity_terms(config.loss, streams(config)[0])))


def check(config):
    """Nothing here depends on `config.model`."""


def get_config(variant=None):
    """Returns the configuration: the synthetic dataset, this method."""
    config = synthetic.get_config(f"csa,{variant}" if variant else "csa")
    config.model.name = "new_method"
    return config
