"""DeSKPro on CCVID.

    python -m deskpro_jax.main --config configs/ccvid.py --workdir runs/ccvid --config.data.raw_dir=DIR

`DIR` holds the sessions and lists as their authors distribute them (`CCVID/session1`, `CCVID/train.txt`, ...), or is
that `CCVID/` itself; `--config.data.parts_dir` adds masks and faces (`docs/datasets.md`). It is read once, to build the
dataset. The paper reports nothing on CCVID and this package has not been run on it, so no score is known; the loss has
the values of Celeb-reID. Results come under the protocols general, cc and sc, which compare tracklets by the mean of
their frames (`docs/evaluation.md`).

As in published work frames are 256x128, training tracklets are cut every 64 frames, and an epoch sees 8 frames of each
piece; here they are drawn at random, since each is an image of its own. An epoch has about an eighth of the training
frames: the time it takes follows from their number, which the authors do not state by split.
"""

from __future__ import annotations

import ml_collections

from deskpro_jax.configs import base, variants


def get_config(variant: str | None = None) -> ml_collections.ConfigDict:
    """Returns the configuration; `variant` is any of `variants.VARIANTS`, joined by commas."""
    config = base.get_config()
    config.data.name = "ccvid"
    config.data.body_size = (256, 128)
    config.data.frames_per_tracklet = 8
    config.data.tracklet_length = 64
    return variants.apply(config, variant)
