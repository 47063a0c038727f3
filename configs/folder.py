"""DeSKPro on your own images.

    python -m deskpro_jax.main --config configs/folder.py --workdir runs/folder --config.data.raw_dir=DIR

`DIR` is a CSV with one line per image, or the folder that holds `manifest.csv` (`docs/datasets.md`); it is read once,
to build the dataset. Every set of images is called "folder": give each its own `--config.data.data_dir` to be built in.
`python -m data_prep.check DIR` lists what is wrong with it beforehand. No score is known for your images;
the loss has the values of Celeb-reID. Results are reported under the protocols general, cc, sc and none, as far as the
labels allow (`docs/evaluation.md`). An epoch has a step for every 30 training images, and the time it takes grows
with them. Without masks and faces train only the body stream: `--config configs/folder.py:csa`.
"""

from __future__ import annotations

import ml_collections

from deskpro_jax.configs import base, variants


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    """Returns the configuration; `variant` is any of `variants.VARIANTS`, joined by commas."""
    config = base.get_config()
    config.data.name = "folder"
    return variants.apply(config, variant)
