"""DeSKPro on the embedded synthetic dataset: the demo.

    python -m deskpro_jax.main --config configs/synthetic.py --workdir runs/synthetic

README.md has the expected scores and the time it takes. `:full` is a benchmark of Celeb-reID-light's size with the
paper's network and image sizes, meant for an accelerator; other variants are those of `variants.py`.
"""

from __future__ import annotations

import ml_collections

from configs import base, variants


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
    # Two CPU cores and ten minutes: a quarter of OSNet's width, images at half the size they are stored in.
    config.data.body_size = (128, 64)
    config.data.face_size = (64, 64)
    config.data.identities = 8
    config.data.images_per_identity = 4
    config.model.backbone = "x0_25"
    config.model.feature_dim = 128
    config.loss.temperature = 1.0
    config.teacher.epochs = 20
    config.train.epochs = 30
    config.train.base_lr = 0.0016
    config.train.warmup_epochs = 2
    config.eval.every = 10
    if "debug" in names:
        config.data.name = "synthetic_tiny"
    return variants.apply(config, ",".join(names))
