"""What made the weights that come with the package (deskpro_jax/pretrained): the demo's networks on more drawn people.

    python -m deskpro_jax.main --config configs/pretraining.py --workdir runs/pretraining

Networks, images and recipe are those of configs/synthetic.py, whose demo can therefore start from them; the people are
others, of a seed that no benchmark uses. The commands that write the files are in deskpro_jax/pretrained/README.md, the
scores in the model cards beside it.
"""

from __future__ import annotations

import ml_collections

from deskpro_jax.configs import synthetic


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    """Returns the configuration; `variant` is any of `variants.VARIANTS`, joined by commas."""
    config = synthetic.get_config(f"random,{variant or ''}")
    if "debug" not in (variant or "").split(","):
        config.data.name = "synthetic_pretraining"
        config.teacher.epochs = 6
        config.train.epochs = 8
    config.data.build_seed = 1000
    config.eval.baselines = False
    return config
