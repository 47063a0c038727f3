"""DeSKPro on the embedded synthetic dataset: the demo.

    python -m deskpro_jax.main --config configs/synthetic.py --workdir runs/synthetic

README.md has the expected scores and the time it takes. Its networks start from weights that come with the package, of
other drawn people, as the paper's start from ImageNet; `:random` starts from random weights and trains longer. The rows
of the paper's Table 3 (`:csa_att`, `:face_fkp`, ...) start from an OSNet by itself: docs/ablation.md has their scores.
Other methods (`:pcb`, ...) start from random weights and see as many images as `:random,deskpro`; their recipes are
made to fit the small images (`small.py`), and with `:full` they are as published. `:full` is a benchmark of
Celeb-reID-light's size with the paper's network and image sizes, meant for an accelerator; further variants are those
of `variants.py`.
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
    # Two CPU cores and a few minutes: a quarter of OSNet's width, and small images. The body stream needs to see many
    # before it learns anything, so that half the pixels at twice the speed are worth more.
    config.data.body_size = (96, 48)
    config.data.face_size = (48, 48)
    config.data.identities = 8
    config.data.images_per_identity = 4
    config.model.backbone = "x0_25"
    config.model.feature_dim = 128
    # In a few hundred steps, batch-hard mining drowns the other gradients, and erasing costs more than it brings.
    config.loss.triplet_weight = 0.1
    config.loss.temperature = 1.0
    config.augment.erase = 0.0
    config.train.base_lr = 0.003
    config.train.warmup_epochs = 1
    config.eval.every = 0
    rows = set(names) <= set(variants.ROWS)  # of Table 3; none of them is the demo
    others = [name for name in names if name in methods.variants()]
    if not names:
        config.teacher.epochs, config.train.epochs, config.train.base_lr = 2, 3, 0.001
    elif rows:
        # In a short training the teacher has most to tell; longer, the student finds it by itself (docs/ablation.md).
        config.teacher.epochs, config.train.epochs, config.loss.temperature = 10, 5, 3.0
    elif others or set(names) & set(variants.ROWS):
        config.teacher.epochs = config.train.epochs = 30
    else:
        config.teacher.epochs, config.train.epochs = 8, 12
    if "random" in names:
        names.remove("random")
    if "debug" in names:
        config.data.name = "synthetic_tiny"
    own = config.copy_and_resolve_references()
    variants.apply(config, ",".join(names))
    if others and "debug" not in names:
        small.fit(config, own)
    if rows:  # other methods and the networks of `debug` start from random weights: these do not fit them
        _start_from(config, "drawn_osnet_x0_25" if names else "drawn_deskpro_x0_25")
    return config


def _start_from(config: ml_collections.ConfigDict, name: str) -> None:
    """Sets the pretrained weights of the networks that are trained, in place."""
    student, teacher = (config.model.face == role for role in ("student", "teacher"))
    config.init.body = f"pretrained:{name}" if config.model.body else ""
    config.init.face = f"pretrained:{name}" if student else ""
    config.init.teacher = f"pretrained:{name}" if teacher or (student and config.loss.alpha > 0) else ""
