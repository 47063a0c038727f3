"""A run warns of losses that the dataset has no labels for, or ends before it starts."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import runs
from configs import synthetic
from deskpro_jax import experiment, methods
from deskpro_jax.data.load import dataset, training_labels
from deskpro_jax.errors import InputError


@pytest.mark.parametrize(
    ("variant", "masks", "fields", "warned"),
    [
        ("deskpro", 0, {}, True),
        ("deskpro", 1, {}, False),
        ("deskpro", 0, {"loss.attention_weight": 0.0}, False),
        ("csa", 0, {}, False),
        ("baseline", 0, {}, False),
        ("face_fkp", 0, {}, False),
    ],
)
def test_a_run_without_any_mask_warns_that_l_att_is_off(
    tiny_data: Path,
    caplog: pytest.LogCaptureFixture,
    variant: str,
    masks: int,
    fields: dict[str, float],
    warned: bool,
) -> None:
    split = dataset.load("synthetic_tiny", tiny_data, "train")
    has_mask = np.arange(len(split)) < masks
    config = runs.config(tiny_data, f"debug,{variant}", **{name.replace(".", "__"): v for name, v in fields.items()})
    for phase in methods.phases(config):
        experiment._warn_if_no_masks(phase.recipe, dataclasses.replace(split, has_mask=has_mask))
    assert ("L_att is off: no image of synthetic_tiny/train has a mask" in caplog.text) == warned


def test_losses_on_clothes_need_outfits(tiny_data: Path, caplog: pytest.LogCaptureFixture) -> None:
    split = dataset.load("synthetic_tiny", tiny_data, "train")
    specs = {name: methods.phases(synthetic.get_config(f"{name},debug"))[0] for name in ("cal", "bot")}
    needs = {name: any(term.needs_clothes for term in spec.recipe.losses) for name, spec in specs.items()}
    assert needs == {"cal": True, "bot": False}
    unknown = dataclasses.replace(split, clothes=np.full(len(split), -1))
    with pytest.raises(InputError, match="cal learns from the clothes of each image, and no image of synthetic_tiny"):
        training_labels.check_clothes("cal", unknown)
    training_labels.check_clothes("cal", dataclasses.replace(split, clothes=split.clothes // 2))
    assert not caplog.text
    training_labels.check_clothes("cal", split)
    assert "every image of synthetic_tiny/train is an outfit of its own (48)" in caplog.text


def test_pixel_sampling_needs_label_maps(tiny_data: Path) -> None:
    split = dataset.load("synthetic_tiny", tiny_data, "train")
    training_labels.check_garments("sps", split)
    with pytest.raises(InputError, match=r"sps changes upper clothes .* no image of .* has a label map"):
        training_labels.check_garments("sps", dataclasses.replace(split, has_mask=np.zeros(len(split), bool)))
    masks = dataclasses.replace(split, metadata={**split.metadata, "label_scheme": "cloth_mask"})
    with pytest.raises(InputError, match="has masks of all clothing"):
        training_labels.check_garments("sps", masks)
