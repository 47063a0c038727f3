"""Published recipes on a small dataset: the same photos and as many of them for every method, narrow networks.

A published recipe is made for hundreds of thousands of photos and networks with ImageNet's weights. What the
configuration of a small dataset says of the size of photos, batches and epochs takes the place of what the recipe
says, and the network is the narrowest of its kind, from random weights. Losses, augmentation, sampler, optimiser, the
shape of the schedule and the comparison at test stay the recipe's; Adam's rate grows as much as DeSKPro's does there.
"""

from __future__ import annotations

import ml_collections

from deskpro_jax import methods
from deskpro_jax.configs import base

_OF_DATASET = ("data.identities", "data.images_per_identity", "train.epochs", "eval.every")
_ADAPTIVE = ("adam", "amsgrad")
_EPOCHS = ("train.milestones", "train.warmup_epochs")  # that move with the length of the training


def fit(config: ml_collections.ConfigDict, own: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """Makes a published recipe fit a small dataset, in place.

    Args:
        config: the dataset's configuration with the variant of a method.
        own: the dataset's configuration without it.

    Returns:
        `config`.
    """
    shortest = methods.debug_fields(config)  # networks, the smallest photos, and which fields of the method are epochs
    fields: dict[str, object] = {name: _get(own, name) for name in _OF_DATASET}
    if not config.train.reference_batch:  # a published rate holds for batches of the published size
        fields["train.reference_batch"] = config.data.identities * config.data.images_per_identity
    if (
        config.train.optimizer in _ADAPTIVE
    ):  # as much more as DeSKPro's, which would learn too slowly from random weights
        fields["train.base_lr"] = config.train.base_lr * own.train.base_lr / base.get_config().train.base_lr
    part = own.train.epochs / config.train.epochs
    for name in (*_EPOCHS, *(name for name in shortest if name.startswith(("loss.", "train.")))):
        fields[name] = _scaled(_get(config, name), part)
    # Everything is new where no published weights are.
    fields |= {"train.pretrained_rate": 1.0, "train.freeze_epochs": 0, "train.schedule_epochs": 0}
    fields["model.backbone"] = own.model.backbone
    fields["model.feature_dim"] = min(config.model.feature_dim, own.model.feature_dim)
    fields |= {name: value for name, value in shortest.items() if name.startswith("model.")}
    size = tuple(own.data.body_size)
    smallest = shortest.get("data.body_size")
    if isinstance(smallest, tuple):  # some methods take only multiples of it
        size = tuple(-(-side // unit) * unit for side, unit in zip(size, smallest, strict=True))
    fields["data.body_size"] = size
    config.update_from_flattened_dict(fields)
    return config


def _scaled(epochs: object, part: float) -> object:
    """Returns epochs of a recipe in a training `part` as long: at least one where there were any."""
    if isinstance(epochs, tuple):
        return tuple(_scaled(epoch, part) for epoch in epochs)
    return max(1, round(epochs * part)) if isinstance(epochs, int) and epochs > 0 else epochs


def _get(config: ml_collections.ConfigDict, name: str) -> object:
    group, field = name.split(".")
    value: object = config[group][field]
    return value
