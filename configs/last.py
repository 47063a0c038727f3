"""DeSKPro on LaST.

    python -m deskpro_jax.main --config configs/last.py --workdir runs/last --config.data.raw_dir=DIR

`DIR` holds the photos as their authors distribute them (`last/train/ last/test/`), or is that `last/` itself;
`--config.data.parts_dir` adds masks and faces (`docs/datasets.md`). It is read once, to build the dataset. The paper
reports nothing on LaST and this package has not been run on it, so no score is known; the loss has the values of
Celeb-reID. Results come under the one protocol general, which removes nothing (`docs/evaluation.md`). It is
140 epochs of 2374 steps for the student, and for the teacher as many less what images without a face leave out.
"""

from __future__ import annotations

import ml_collections

from deskpro_jax.configs import base, variants


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    """Returns the configuration; `variant` is any of `variants.VARIANTS`, joined by commas."""
    config = base.get_config()
    config.data.name = "last"
    return variants.apply(config, variant)
