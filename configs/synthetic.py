"""DeSKPro on the embedded synthetic dataset: the demo.

    python -m deskpro_jax.main --config configs/synthetic.py --workdir runs/synthetic

README.md has the expected scores and the time it takes. The rows of the paper's Table 3 (`:csa_att`, `:face_fkp`, ...)
are trained longer than the demo: docs/ablation.md has their scores. So are other methods (`:pcb`, ...), whose recipes
are made to fit the small images (`small.py`); with `:full` they are as published. `:full` is a benchmark of
Celeb-reID-light's size with the paper's network and image sizes, meant for an accelerator; other variants are those of
`variants.py`.
"""

from __future__ import annotations

import ml_collections

from deskpro_jax import methods
from deskpro_jax.configs import base, small, variants


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    """Returns the configuration; `variant` may be "full" or any of `variants.VARIANTS`, joined by commas."""
    config = base.get_config()
    names = [name for name in (variant or "").split(",") if name]
    config.data.name = "synthetic_small"
    config.eval.baselines = True
    if "full" in names:
        names.remove("full")
        config.data.name = "synthetic_full"
        return variants.apply(config, ",".join(names))
    # Two CPU cores and less than ten minutes: a quarter of OSNet's width, and small images. The body stream needs to
    # see many before it learns anything, so that half the pixels at twice the speed are worth more.
    config.data.body_size = (96, 48)
    config.data.face_size = (48, 48)
    config.data.identities = 8
    config.data.images_per_identity = 4
    config.model.backbone = "x0_25"
    config.model.feature_dim = 128
    # From random weights and in a few hundred steps, batch-hard mining drowns the other gradients, and erasing costs
    # more than it brings.
    config.loss.triplet_weight = 0.1
    config.loss.temperature = 1.0
    config.augment.erase = 0.0
    config.teacher.epochs = 8
    config.train.epochs = 12
    config.train.base_lr = 0.003
    config.train.warmup_epochs = 1
    config.eval.every = 6
    others = [name for name in names if name in methods.variants()]
    if others or any(name in variants.ROWS for name in names):
        # As long as two cores train three seeds of all rows in an hour and a half. Faces as small as in the photos
        # (about 30 pixels): enlarged, drawn faces are distinguished so well by colour only that neither a teacher that
        # sees details nor a body stream from random weights has much to add.
        config.data.face_size = (24, 24)
        config.teacher.epochs = config.train.epochs = 30
        config.eval.every = 0
    if "debug" in names:
        config.data.name = "synthetic_tiny"
    own = config.copy_and_resolve_references()
    variants.apply(config, ",".join(names))
    return small.fit(config, own) if others and "debug" not in names else config
