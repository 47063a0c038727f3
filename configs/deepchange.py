"""DeSKPro on DeepChange.

    python -m deskpro_jax.main --config configs/deepchange.py --workdir runs/deepchange --config.data.raw_dir=DIR

`DIR` holds the folders and lists as their authors distribute them (`DeepChangeDataset/train-set`,
`DeepChangeDataset/train-set-bbox.txt`, ...), or is that `DeepChangeDataset/` itself; `--config.data.parts_dir` adds
masks and faces (`docs/datasets.md`). It is read once, to build the dataset. The paper reports nothing on DeepChange and
this package has not been run on it, so no score is known; the loss has the values of Celeb-reID. Results come under the
one protocol general, which removes images by tracklet (`docs/evaluation.md`). It is 140 epochs of 2502 steps for the
student, and for the teacher as many less what images without a face leave out.
"""

from __future__ import annotations

import ml_collections

from deskpro_jax.configs import base, variants


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    """Returns the configuration; `variant` is any of `variants.VARIANTS`, joined by commas."""
    config = base.get_config()
    config.data.name = "deepchange"
    return variants.apply(config, variant)
