"""What made the weights that come with the package (deskpro_jax/pretrained): small networks on many drawn people.

    python -m deskpro_jax.main --config configs/pretraining.py --workdir runs/drawn_deskpro
    python -m deskpro_jax.main --config configs/pretraining.py:osnet --workdir runs/drawn_osnet

Networks and images are those of the demo (configs/synthetic.py), which can therefore start from them; the people are
490 others, of a seed that no benchmark uses. `deskpro convert RUN --to NAME.safetensors --compact` writes the file and
its model card.
"""

from __future__ import annotations

import ml_collections

from deskpro_jax.configs import synthetic, variants

# An OSNet by itself, on photos, from random weights: not the recipe of the variant `osnet`, which starts from ImageNet.
OSNET = {
    "model.name": "osnet",
    "model.face": "none",
    "model.attention": "none",
    "model.feature_dim": 512,
}


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    """Returns the configuration; `variant` is "osnet" or any of `variants.VARIANTS`, joined by commas."""
    names = [name for name in (variant or "").split(",") if name]
    config = synthetic.get_config()
    config.data.name = "synthetic_tiny" if "debug" in names else "synthetic_full"
    config.data.build_seed = 1000
    config.init.body = config.init.face = config.init.teacher = ""  # from random weights
    config.eval.baselines = False
    config.eval.every = 0
    config.teacher.epochs = 12
    config.train.epochs = 20
    if "osnet" in names:
        config.update_from_flattened_dict(OSNET)
        names.remove("osnet")
    return variants.apply(config, ",".join(names))
