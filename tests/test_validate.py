"""Every field of a configuration is checked, by one room, before anything is built or trained."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ml_collections import ConfigDict

import runs
from configs import base
from deskpro_jax import experiment
from deskpro_jax.config import expect, fields
from deskpro_jax.errors import InputError

DEFAULTS = fields.flatten(base.get_config())
FIELDS = sorted(DEFAULTS)
MAY_BE_EMPTY = (
    "compilation_cache",
    "init.",
    "teacher.checkpoint",
    "data.data_dir",
    "data.raw_dir",
    "data.parts_dir",
    "model.body_method",
    "teacher.method",
)


def with_value(name: str, value: Any) -> ConfigDict:
    """Returns the defaults with one field of any type."""
    config = base.get_config()
    *groups, field = name.split(".")
    section = config
    for group in groups:
        section = section[group]
    with section.ignore_type():
        section[field] = value
    return config


def wrong_values(name: str) -> list[Any]:
    """Returns values that a field of the default's type must not have."""
    default = DEFAULTS[name]
    if isinstance(default, bool):
        return [None, 1, 0.0, "True", ()]
    if isinstance(default, int):
        return [None, True, 1.5, "1", math.nan, -2]
    if isinstance(default, float):
        return [None, "1", math.nan, math.inf, -0.1]  # True becomes 1.0 when it is set
    if isinstance(default, str):
        return [None, 3, True, *([] if name.startswith(MAY_BE_EMPTY) else ["", " ", "nothing of this name", "a:b"])]
    wrong_item = {
        "data.clothing": -1,
        "eval.junk_identities": 1.5,
        "eval.distractor_identities": True,
        "train.milestones": -1,
    }.get(name, 1)
    return [None, "text", 3, [""], [wrong_item], [None]]


def test_the_default_is_valid() -> None:
    experiment.validate(base.get_config())
    experiment.validate(base.get_config(), "evaluate")


def test_every_field_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: Counter[str] = Counter()
    read = expect.read

    def counted(config: ConfigDict, name: str) -> Any:
        checked[name] += 1
        return read(config, name)

    monkeypatch.setattr(expect, "read", counted)
    experiment.validate(base.get_config())
    assert checked == Counter(FIELDS)


@pytest.mark.parametrize("name", FIELDS)
def test_wrong_types_and_values_of_a_field_are_refused(name: str) -> None:
    for value in wrong_values(name):
        for mode in ("train", "evaluate"):
            with pytest.raises(InputError, match=rf"^{name}\b|protocol") as caught:
                experiment.validate(with_value(name, value), mode)
            assert "\n" not in str(caught.value), value


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("seed", 2**32, "an integer >= 0 and <= 4294967295"),
        ("model.name", "deskpr", "model.name has 'deskpr', .* did you mean deskpro"),
        ("model.name", "json", "model.name is 'json', whose module has no function 'build'"),
        ("model.backbone", "x1", "model.backbone is 'x1'; expected one of x1_0, .*; did you mean x1_0"),
        ("model.backbone", "nowhere:net", "and nowhere cannot be imported"),
        ("model.backbone", "math:pi", "model.backbone is 'math:pi', a float; expected a Backbone"),
        ("model.streams", "abc", "expected one of abcd, aacd; did you mean abcd?"),
        ("model.drop_ratio", 1.1, "a number >= 0 and <= 1"),
        ("model.feature_dim", 0, "an integer >= 1"),
        ("loss.mask_rule", "papr", "expected one of paper, released; did you mean paper?"),
        ("loss.temperature", 0.0, "a number > 0"),
        ("loss.label_smoothing", 1.5, "<= 1"),
        ("loss.alpha", 1.01, "<= 1"),
        ("loss.mask_epsilon", 2.0, "<= 1"),
        ("loss.extra", ["spread"], "loss.extra has 'spread'; expected 'module:name'"),
        ("loss.extra", ["math:pie"], "math has no 'pie'; did you mean pi"),
        ("teacher.statistics", "runing", "expected one of running, batch; did you mean running?"),
        ("eval.missing_face", "nan", "expected one of body, zeros."),
        ("eval.report", "best", "expected one of last, validation, stitched."),
        ("eval.protocols", ["generel"], "did you mean general"),
        ("eval.batch", 0, "an integer >= 1"),
        ("eval.rerank_k1", 0, "an integer >= 1"),
        ("eval.rerank_lambda", 1.5, "<= 1"),
        ("init.dont_load", ["("], r"init.dont_load has '\(', which is not a regular expression"),
        ("train.log_every", 0, "an integer >= 1"),
        ("train.profile_steps", (3,), r"the first and the last step to profile, e\.g\. \(100, 103\), or \(\) for none"),
        ("train.profile_steps", (3, 2), "the first and the last step to profile"),
        ("train.profile_steps", (0, 2), "the first and the last step to profile"),
        ("train.profile_steps", (1, 2, 3), "the first and the last step to profile"),
        ("train.remat", "lite", "expected one of none, light, blocks."),
        ("train.final_fraction", 2.0, "<= 1"),
        ("data.name", "celeb_ligth", "data.name has 'celeb_ligth': there is no such dataset; did you mean celeb_light"),
        ("data.name", "math:pi", "data.name has 'math:pi', which is a float; expected a DatasetSpec"),
        ("data.body_size", (384,), r"a height and a width in pixels, e\.g\. \(384, 128\)"),
        (
            "data.clothing",
            (5, 256),
            r"data.clothing is \(5, 256\); it must be a sequence of part labels, integers >= 0",
        ),
        ("data.clothing", (True,), "a sequence of part labels"),
        ("data.identities", 0, "an integer >= 1"),
        ("data.workers", -1, "an integer >= 0"),
        ("augment.flip", 1.5, "a number >= 0 and <= 1"),
        ("augment.crop_scale", 0.9, "a number >= 1"),
        ("augment.erase_area", (0.4, 0.02), "two numbers in ascending order"),
        ("augment.erase_area", (0.4, 1.2), "2 numbers, each >= 0 and <= 1"),
        ("augment.erase_ratio", 0.0, "a number > 0 and <= 1"),
        ("augment.erase_fill", (125.0, 115.0, 100.0), "3 numbers, each >= 0 and <= 1"),
        ("augment.shared_draws", -1, "an integer >= 0"),
        ("mesh.data", 0, "a number of devices >= 1, or -1"),
        ("mesh.model", 0, "an integer >= 1"),
    ],
)
def test_the_message_says_what_is_expected(name: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        experiment.validate(with_value(name, value))


def test_integers_may_stand_for_numbers() -> None:
    experiment.validate(with_value("loss.margin", 1))
    experiment.validate(with_value("loss.alpha", 0))


def test_truth_is_no_number() -> None:
    config = ConfigDict({"a": True})
    for check in (expect.integer, expect.number):
        with pytest.raises(InputError, match=r"a is True; it must be an? (integer|number) >= 0"):
            check(config, "a", least=0)


def test_fields_have_to_go_together() -> None:
    config = base.get_config()
    config.model.body, config.model.face = False, "none"
    with pytest.raises(InputError, match="there is no stream left to train"):
        experiment.validate(config)
    config = base.get_config()
    config.eval.report = "validation"
    with pytest.raises(InputError, match=r"data\.validation_identities is 0: set it"):
        experiment.validate(config)
    experiment.validate(config, "evaluate")
    config = base.get_config()
    config.teacher.train = False
    with pytest.raises(InputError, match=r"teacher\.checkpoint is empty and teacher\.train is False"):
        experiment.validate(config)
    experiment.validate(config, "evaluate")


def test_a_missing_field_is_an_error_that_says_where_to_start_from() -> None:
    config = base.get_config()
    with config.unlocked():
        del config.loss.mask_rule
    with pytest.raises(InputError, match=r"has no field loss\.mask_rule: start it from base\.get_config"):
        experiment.validate(config)


@pytest.mark.parametrize(
    ("name", "value"), [("loss.mask_rule", "papr"), ("teacher.statistics", "bacth"), ("eval.missing_face", "zero")]
)
def test_a_wrong_value_leaves_nothing_behind(tiny_data: Path, tmp_path: Path, name: str, value: str) -> None:
    config = runs.config(tiny_data, **{name.replace(".", "__"): value})
    with pytest.raises(InputError, match=name):
        experiment.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_corrected_configuration_is_trained_in_the_same_workdir(tiny_data: Path, tmp_path: Path) -> None:
    wrong = runs.config(tiny_data, "face_fkp,debug", loss__mask_rule="papr", train__epochs=1, teacher__epochs=0)
    with pytest.raises(InputError, match=r"loss\.mask_rule"):
        runs.run(wrong, tmp_path)
    right = runs.config(tiny_data, "face_fkp,debug", train__epochs=1, teacher__epochs=0)
    assert runs.run(right, tmp_path)
