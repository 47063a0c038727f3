"""DeSKPro on Celeb-reID.

    python -m deskpro_jax.main --config configs/celeb.py --workdir runs/celeb --config.data.raw_dir=DIR

`DIR` holds the prepared folders `imgs/ lr_face/ hr_face/ mask/`, or the photos as their authors
distribute them with `--config.data.parts_dir` for masks and faces (`docs/datasets.md`); it is read
once, to build the dataset. The paper reports mAP 22.7, R-1 68.6, R-5 82.3 (Table 1). These are the paper's figures:
this package has not been run on the dataset. It is 140 epochs of 673 steps for the teacher and as
many for the student.

`:official` is what the released code does, row by row of docs/paper_and_code.md. It trains no teacher but loads the
released one, and starts from OSNet's ImageNet weights:

    python -m deskpro_jax.main --config configs/celeb.py:official --workdir runs/celeb_official \\
        --config.data.raw_dir=DIR --config.teacher.checkpoint=celeb_teacher.pth \\
        --config.init.body=osnet_x1_0_imagenet.pth --config.init.face=osnet_x1_0_imagenet.pth
"""

from __future__ import annotations

import ml_collections

from deskpro_jax.configs import base, variants


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    """Returns the configuration; `variant` is any of `variants.VARIANTS`, joined by commas."""
    config = base.get_config()
    config.data.name = "celeb"
    config.loss.mask_epsilon = 0.1
    config.loss.attention_weight = 7.0
    config.loss.temperature = 5.0
    config.loss.alpha = 0.7
    return variants.apply(config, variant)
