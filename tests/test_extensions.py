"""What a fork adds is found by name, and the examples of the documentation train without a change of the package."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ml_collections import ConfigDict

import runs
from deskpro_jax import experiment
from deskpro_jax.cli import train
from deskpro_jax.data import opening
from deskpro_jax.data.datasets import added
from deskpro_jax.data.datasets import layouts as authors
from deskpro_jax.data.datasets.protocols import PROTOCOLS, Protocol
from deskpro_jax.data.load import dataset
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation import scoring
from deskpro_jax.losses import extra
from deskpro_jax.models.osnet import Backbone, backbone

EXAMPLES = runs.ROOT / "docs" / "examples"
SMALL = {"train.epochs": 1, "train.log_every": 1, "eval.every": 0, "eval.baselines": False, "augment.erase": 0.0}


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Examples can be imported, and datasets that they add are gone afterwards."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    layouts, protocols = dict(authors.LAYOUTS), dict(PROTOCOLS)
    yield
    for there, before in ((authors.LAYOUTS, layouts), (PROTOCOLS, protocols)):
        there.clear()  # type: ignore[attr-defined]
        there.update(before)  # type: ignore[attr-defined]


def config_of(name: str, **fields: object) -> ConfigDict:
    config = importlib.reload(importlib.import_module(name)).get_config("debug")
    config.update_from_flattened_dict({**SMALL, **{key.replace("__", "."): value for key, value in fields.items()}})
    return config


@pytest.mark.parametrize("file", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_is_short(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    documented: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            documented |= set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    code = [
        line
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip() and not line.lstrip().startswith("#") and number not in documented
    ]
    assert len(code) < 30, f"{file.name} has {len(code)} lines of code"


def test_the_page_shows_every_example() -> None:
    shown = re.findall(r"literalinclude\} examples/(\w+\.py)", (runs.ROOT / "docs/forking.md").read_text())
    assert sorted(shown) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.slow
def test_an_added_term_and_another_backbone_are_trained_and_evaluated(tiny_data: Path, tmp_path: Path) -> None:
    """Both in one run, since the small backbone compiles in a fraction of OSNet's time."""
    config = config_of("new_loss", data__data_dir=str(tiny_data))
    backbone_of_example = config_of("new_backbone").model.backbone
    config.model.backbone = backbone_of_example
    trained = runs.run(config, tmp_path / "run")
    terms = runs.losses(tmp_path / "run" / "student")
    assert all(0 < step["spread"] <= 0.1 for step in terms.values())
    first = terms[1]
    assert first["total"] == pytest.approx(
        config.loss.triplet_weight * first["triplet_body"] + first["ce_body"] + first["spread"], rel=1e-5
    )
    assert "trunk/unit0/conv/kernel" in (tmp_path / "run/student/parameters.txt").read_text()
    again = runs.run(config, tmp_path / "run", "evaluate")
    assert [result.scalars() for result in again] == [result.scalars() for result in trained]


def test_an_added_dataset_is_built_and_reported_under_its_protocols(tiny_data: Path, tmp_path: Path) -> None:
    for split in ("train", "query", "gallery"):
        drawn = dataset.load("synthetic_tiny", tiny_data, split)
        for i in range(len(drawn)):
            file = tmp_path / f"raw/{split}/{drawn.identity[i]}/{drawn.camera[i]}_{drawn.clothes[i]}_{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(drawn[i].body)
    config = config_of("new_dataset", data__raw_dir=str(tmp_path / "raw"), data__data_dir=str(tmp_path / "built"))
    experiment.validate(config)
    found = opening.load_data(config, tmp_path / "run")
    chosen = scoring.choose_protocols(config, (found.query, found.gallery))
    assert [protocol.name for protocol in chosen.protocols] == ["other_camera", "other_clothes"]
    assert not chosen.left_out
    assert (len(found.train), found.classes) == (len(dataset.load("synthetic_tiny", tiny_data, "train")), runs.CLASSES)
    metadata = json.loads((tmp_path / "built/cc_reid/office/1.0.0/metadata.json").read_text())
    assert metadata["camera"] == "the office's cameras"


def test_a_dataset_that_cannot_be_added_is_refused() -> None:
    layout, protocols = authors.LAYOUTS["celeb"], (Protocol("all", "everything", "none"),)
    for name, given, message in (
        ("celeb", protocols, "a dataset 'celeb' comes with the package"),
        ("Office 1", protocols, "'Office 1' is no name"),
        ("office", (), "'office' has no protocols"),
    ):
        with pytest.raises(InputError, match=message):
            added.add_dataset(name, layout, given)
    with pytest.raises(InputError, match="no dataset is called 'offce'"):
        dataset.check_name("offce")
    added.add_dataset("office", layout, protocols)
    dataset.check_name("office")
    with pytest.raises(InputError, match="no dataset is called 'offce'; did you mean office"):
        dataset.check_name("offce")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("spread", "loss.extra has 'spread'; expected 'module:name'"),
        ("new_loss:", "expected 'module:name'"),
        ("no_such_module_here:spread", "no_such_module_here cannot be imported"),
        ("new_loss:spraed", "new_loss has no 'spraed'; did you mean spread"),
    ],
)
def test_a_wrong_name_is_told_with_what_to_do(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        extra.added_terms((text,))


def test_two_terms_need_two_names() -> None:
    with pytest.raises(InputError, match="two functions called 'spread'"):
        extra.added_terms(("new_loss:spread", "new_loss:spread"))
    assert list(extra.added_terms(("new_loss:spread",))) == ["spread"]


def test_a_backbone_is_one_of_the_known_or_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(backbone("new_backbone:PLAIN"), Backbone)
    with pytest.raises(InputError, match="a function; expected a Backbone"):
        backbone("new_loss:spread")
    with pytest.raises(InputError, match="expected one of x1_0"):
        backbone("x2_0")


def test_the_folder_of_a_configuration_can_be_imported_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").touch()
    train._with_config_file(["x", f"--config={tmp_path / 'mine.py'}:debug"])
    assert sys.path[-1] == str(tmp_path)
    before = list(sys.path)
    train._with_config_file(["x", "--config=celeb"])
    assert sys.path == before
