"""The order of classes: identities by number here, by the text of their file names in released checkpoints."""

from __future__ import annotations

import numpy as np

from deskpro_jax.data.load.dataset import ReIDSplit, train_classes

ORDERS = ("number", "text")


def text_positions(split: ReIDSplit) -> np.ndarray | None:
    """Finds where the released code has each class: it sorts identities as text, so that 10 comes before 9.

    Args:
        split: the training split; images are named IDENTITY_CAMERA_...

    Returns:
        [classes] position in the released order of each class in the order of `train_classes`; None where the names do
        not begin with the identity, each with its own text.
    """
    texts = dict(zip(split.identity.tolist(), (name.split("_")[0] for name in split.image_id), strict=True))
    if len(set(texts.values())) < len(texts) or not all(text.isdigit() for text in texts.values()):
        return None
    ordered = [texts[identity] for identity in train_classes(split).tolist()]
    return np.argsort(np.argsort(ordered, kind="stable"), kind="stable")
