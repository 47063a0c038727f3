"""Named variants shared by all configurations: `debug`, `official`, the rows of Table 3, and other methods.

`--config configs/celeb_light.py:csa_att` trains row 3 (body stream with CSA and L_att). `official` makes the choices of
the released code wherever it differs from the paper. The other methods are variants too, each with the recipe that was
published for it (`VARIANTS` of the modules in deskpro_jax/methods): `:pcb`, `:osnet_triplet`. Variants compose, a later
one overrides: `:official,debug`, `:pcb,debug`.
"""

from __future__ import annotations

import ml_collections

from deskpro_jax import methods
from deskpro_jax.config.suggestions import did_you_mean


def _rows() -> dict[str, dict[str, object]]:
    body = {"model.body": True, "model.face": "none"}
    face = {"model.body": False, "model.face": "student"}
    no_csa = {"model.attention": "none", "loss.attention_weight": 0.0}
    return {
        "baseline": {**body, **no_csa},  # row 1
        "csa": {**body, "loss.attention_weight": 0.0},  # row 2
        "csa_att": {**body},  # row 3
        "face": {**face, "loss.alpha": 0.0},  # row 4: student without L_fkp
        "face_fkp": {**face},  # row 5: student with L_fkp
        "teacher": {"model.body": False, "model.face": "teacher"},  # row 6
        "two_stream": {"loss.alpha": 0.0},  # row 7: body stream and student without L_fkp
        "deskpro": {},  # row 8
        "deskpro_star": {"model.face": "teacher"},  # DeSKPro*: restored faces at test
    }


# What makes a run short: a narrow network on small images, a handful of steps.
DEBUG = {
    "data.body_size": (64, 32),
    "data.face_size": (32, 32),
    "data.identities": 4,
    "data.images_per_identity": 2,
    "model.backbone": "x0_25",
    "model.feature_dim": 32,
    "teacher.epochs": 1,
    "train.epochs": 2,
    "train.warmup_epochs": 1,
    "train.log_every": 2,
    "eval.every": 1,
    "eval.batch": 16,
}
# What the released code does where it differs from the paper or states more; docs/paper_and_code.md has every row.
OFFICIAL = {
    "data.require_face": True,
    "data.require_mask": True,
    "augment.erase_normalised": True,
    "augment.shared_draws": 4,
    "model.attention": "released",
    "model.streams": "aacd",
    "loss.label_smoothing": 0.1,
    "loss.mask_rule": "released",
    "teacher.statistics": "batch",
    "teacher.train": False,
    "train.epochs": 1000,
    "train.schedule_epochs": 140,
    "eval.every": 5,
    "eval.flip": False,
    "eval.missing_face": "zeros",
    "eval.report": "stitched",
}
_ROWS = _rows()
_WITH_OTHERS = {"deskpro_pcb": {"model.body_method": "pcb"}}  # another method's network in place of a stream
_NAMED = {"debug": DEBUG, "official": OFFICIAL, **_ROWS, **_WITH_OTHERS, **methods.variants()}
VARIANTS = tuple(_NAMED)
ROWS = tuple(_ROWS)  # of Table 3


def apply(config: ml_collections.ConfigDict, variant: str | None) -> ml_collections.ConfigDict:
    """Applies variants to a configuration, in place.

    Args:
        config: the configuration.
        variant: names joined by commas ("face_fkp,debug"), or nothing.

    Returns:
        The same configuration.

    Raises:
        ValueError: a name is unknown; the message names near matches.
    """
    for name in (variant or "").split(","):
        if not name:
            continue
        if name not in VARIANTS:
            hint = did_you_mean(name, VARIANTS) or f"there are {', '.join(VARIANTS)}."
            raise ValueError(f"No variant {name!r} of this configuration: {hint}")
        config.update_from_flattened_dict(_NAMED[name])
        if name == "debug":
            config.update_from_flattened_dict(methods.debug_fields(config))
    return config
