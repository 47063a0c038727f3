"""Every configuration loads, documents what it sets, and refuses unknown names."""

from __future__ import annotations

import importlib
import re

import pytest
from ml_collections import ConfigDict

import runs
from configs import base, variants
from deskpro_jax import experiment, methods
from deskpro_jax.config import fields
from deskpro_jax.data.datasets.find import NAMES, find_dataset
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation import protocols
from deskpro_jax.methods import deskpro
from deskpro_jax.models.contract import Counts

REAL = ("celeb", "celeb_light", "prcc")
WITHOUT_SCORES = ("ltcc", "vc_clothes", "last", "deepchange", "ccvid", "mevid", "folder")
FILES = (*REAL, *WITHOUT_SCORES, "synthetic")
ROWS = ("baseline", "csa", "csa_att", "face", "face_fkp", "teacher", "two_stream", "deskpro", "deskpro_star")


def load(name: str, variant: str | None = None) -> ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config(variant)


def test_the_variants_are_debug_official_the_rows_of_table_3_and_the_other_methods() -> None:
    assert list(variants.VARIANTS) == ["debug", "official", *ROWS, "deskpro_pcb", *methods.variants()]
    assert {"osnet", "osnet_triplet"} <= set(methods.variants())


@pytest.mark.parametrize("variant", [None, "", *variants.VARIANTS, "face_fkp,debug"])
@pytest.mark.parametrize("name", FILES)
def test_every_file_loads_with_every_variant(name: str, variant: str | None) -> None:
    config = load(name, variant)
    assert config.is_locked
    assert config.data.name in NAMES
    assert set(fields.flatten(config)) == set(fields.flatten(base.get_config()))
    if not config.teacher.train:  # the official presets: the released teacher has to be named
        with pytest.raises(InputError, match=r"teacher\.checkpoint is empty"):
            experiment.validate(config)
        config.teacher.checkpoint = "released.pth"
    experiment.validate(config)
    methods.find_method(config.model.name).build(config, Counts(10))


# Row -> body stream, face stream, attention, weight of L_att, is L_fkp used, does a run involve the teacher.
TABLE_3 = {
    "baseline": (True, "none", "none", False, False, False),
    "csa": (True, "none", "paper", False, False, False),
    "csa_att": (True, "none", "paper", True, False, False),
    "face": (False, "student", None, None, False, False),
    "face_fkp": (False, "student", None, None, True, True),
    "teacher": (False, "teacher", None, None, False, True),
    "two_stream": (True, "student", "paper", True, False, False),
    "deskpro": (True, "student", "paper", True, True, True),
    "deskpro_star": (True, "teacher", "paper", True, False, True),
}


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_table_3_sets_its_components(row: str) -> None:
    config = load("celeb", row)
    body, face, attention, attention_loss, distils, teacher = TABLE_3[row]
    assert (config.model.body, config.model.face) == (body, face)
    if attention is not None:
        assert config.model.attention == attention
        assert (config.loss.attention_weight > 0) == attention_loss
    student = deskpro.build(config, Counts(10)) if body or face == "student" else None
    assert (student is not None and student.face_stream is not None and config.loss.alpha > 0) == distils
    assert deskpro.needs_teacher(config) == teacher


@pytest.mark.parametrize(
    ("name", "temperature", "alpha", "scores"),
    [
        ("celeb", 5.0, 0.7, ("22.7", "68.6", "82.3")),
        ("celeb_light", 5.0, 0.7, ("29.8", "52.0", "81.6")),
        ("prcc", 1.0, 0.8, ("66.3", "74.0", "96.6", "99.6")),
    ],
)
def test_real_datasets_get_the_papers_values(
    name: str, temperature: float, alpha: float, scores: tuple[str, ...]
) -> None:
    config = load(name)
    assert config.data.name == name
    assert (config.loss.temperature, config.loss.alpha) == (temperature, alpha)
    assert (config.loss.attention_weight, config.loss.mask_epsilon) == (7.0, 0.1)
    assert (config.train.epochs, config.teacher.epochs, config.train.warmup_epochs) == (140, 140, 10)
    assert (config.train.base_lr, config.train.final_fraction, config.train.weight_decay) == (0.0006, 0.001, 0.0005)
    assert (config.data.identities, config.data.images_per_identity) == (5, 6)
    assert (config.data.body_size, config.data.face_size) == ((384, 128), (224, 224))
    assert (config.model.backbone, config.model.feature_dim, config.loss.margin) == ("x1_0", 512, 0.7)
    text = importlib.import_module(f"configs.{name}").__doc__ or ""
    assert all(score in text for score in scores)


def test_full_is_the_papers_network_on_the_largest_synthetic_dataset() -> None:
    config = load("synthetic", "full")
    assert config.data.name == "synthetic_full"
    assert (config.model.backbone, config.data.body_size, config.train.epochs) == ("x1_0", (384, 128), 140)


@pytest.mark.parametrize("name", FILES)
def test_a_file_states_its_command_its_score_and_its_length(name: str) -> None:
    text = importlib.import_module(f"configs.{name}").__doc__ or ""
    assert f"python -m deskpro_jax.main --config configs/{name}.py --workdir runs/{name}" in text
    assert "score" in text or "mAP" in text
    assert re.search(r"\b(hours?|minutes|epochs of \d+ steps|the time it takes)\b", text)


@pytest.mark.parametrize("name", FILES)
def test_a_misspelt_variant_fails_with_near_matches(name: str) -> None:
    with pytest.raises(ValueError, match=r"'deskpro_tsar'.*did you mean deskpro_star or deskpro"):
        load(name, "deskpro_tsar")
    with pytest.raises(ValueError, match="there are debug, official, baseline, csa"):
        load(name, "zzz")


def test_a_misspelt_field_fails_with_near_matches() -> None:
    config = load("celeb")
    with pytest.raises(AttributeError, match=r'Did you mean "label_smoothing"'):
        config.loss.label_smoothin = 0.1
    with pytest.raises(KeyError, match="not_a_field"):
        config.update_from_flattened_dict({"train.not_a_field": 1})


def test_every_field_is_explained() -> None:
    source = (runs.ROOT / "configs" / "base.py").read_text(encoding="utf-8").splitlines()
    aliases = {"c": ""}
    explained = set()
    for number, line in enumerate(source):
        group = re.match(r"    c\.(\w+) = (?:(\w+) = )?ml_collections", line)
        if group:
            aliases[group[2] or f"c.{group[1]}"] = f"{group[1]}."
            continue
        field = re.match(r"    (\w+(?:\.\w+)?)\.(\w+) = [^#]+(#.*)?$", line)
        if field and field[1] in aliases:
            comment = field[3] or (source[number - 1] if source[number - 1].lstrip().startswith("#") else None)
            if comment:
                explained.add(f"{aliases[field[1]]}{field[2]}")
    assert explained == set(fields.flatten(base.get_config()))


def test_every_field_is_read_somewhere() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in (runs.ROOT / "deskpro_jax").rglob("*.py"))
    names = [name.rsplit(".", 1)[-1] for name in fields.flatten(base.get_config())]
    assert [name for name in names if not re.search(rf"\.{name}\b", code)] == []


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_for_the_dataset_it_is_named_after_and_claims_no_score_that_is_not_known(name: str) -> None:
    config, text = load(name), importlib.import_module(f"configs.{name}").__doc__ or ""
    if name != "synthetic":
        assert config.data.name == name
        assert [p.name for p in protocols.find_protocols(name)]
    if name in WITHOUT_SCORES:
        assert "no score is known" in text.lower().replace("\n", " ")
        assert not re.search(r"(mAP|R-1) \d", text)
        assert all(p.name in text for p in protocols.find_protocols(name))
    steps = re.search(r"epochs of (\d+) steps", text)
    if steps:
        train = next(size for size in find_dataset(name).sizes if size.split == "train")
        assert int(steps[1]) == train.images // (config.data.identities * config.data.images_per_identity)
