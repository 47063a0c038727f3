"""DeSKPro on MEVID.

    python -m deskpro_jax.main --config configs/mevid.py --workdir runs/mevid --config.data.raw_dir=DIR

`DIR` holds the folders and lists as their authors distribute them (`mevid/bbox_train`, `mevid/train_name.txt`, ...), or
is that `mevid/` itself; `--config.data.parts_dir` adds masks and faces (`docs/datasets.md`). It is read once, to build
the dataset. The paper reports nothing on MEVID and this package has not been run on it, so no score is known; the loss
has the values of Celeb-reID. Results come under the protocols general, cc, sc, same_location, other_location,
same_scale and other_scale, which compare tracklets by the mean of their frames (`docs/evaluation.md`).

As in published work frames are 256x128 and an epoch sees 8 frames of each tracklet; here they are drawn at random,
since each is an image of its own. An epoch has at most 1,689 steps (6,337 tracklets, some of fewer frames):
the time it takes follows from that.
"""

from __future__ import annotations

import ml_collections

from deskpro_jax.configs import base, variants


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    """Returns the configuration; `variant` is any of `variants.VARIANTS`, joined by commas."""
    config = base.get_config()
    config.data.name = "mevid"
    config.data.body_size = (256, 128)
    config.data.frames_per_tracklet = 8
    return variants.apply(config, variant)
