"""What a fork adds is found by name, and the examples of the documentation train without a change of the package."""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from ml_collections import ConfigDict

import runs
from data_prep import build, check
from deskpro_jax import experiment, extensions
from deskpro_jax.cli import train
from deskpro_jax.data import opening
from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.data.datasets.protocols import UNFILTERED
from deskpro_jax.data.datasets.spec import DatasetSpec
from deskpro_jax.data.load import dataset
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation import results_files, scoring
from deskpro_jax.losses import extra
from deskpro_jax.models.osnet import Backbone, backbone
from deskpro_jax.report.opened import open_data

EXAMPLES = runs.ROOT / "docs" / "examples"
SMALL = {"train.epochs": 1, "train.log_every": 1, "eval.every": 0, "eval.baselines": False, "augment.erase": 0.0}


@pytest.fixture(autouse=True)
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Examples can be imported."""
    monkeypatch.syspath_prepend(str(EXAMPLES))


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


@pytest.fixture(scope="module")
def office(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos as the dataset of the example wants them."""
    raw = tmp_path_factory.mktemp("office")
    for split in ("train", "query", "gallery"):
        drawn = dataset.load("synthetic_tiny", tiny_data, split)
        for i in range(len(drawn)):
            file = raw / f"{split}/{drawn.identity[i]}/{drawn.camera[i]}_{drawn.clothes[i]}_{i}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(drawn[i].body)
    return raw


def test_a_dataset_of_a_user_module_is_built_scored_and_reported_by_its_name(
    office: Path, tiny_data: Path, tmp_path: Path
) -> None:
    config = config_of("new_dataset", data__raw_dir=str(office), data__data_dir=str(tmp_path / "built"))
    experiment.validate(config)
    data = opening.load_data(config, tmp_path / "run")
    chosen = scoring.choose_protocols(config, (data.query, data.gallery))
    assert [protocol.name for protocol in chosen.protocols] == ["other_camera", "other_clothes"]
    assert not chosen.left_out
    assert (len(data.train), data.classes) == (len(dataset.load("synthetic_tiny", tiny_data, "train")), runs.CLASSES)
    metadata = json.loads((tmp_path / "built/cc_reid/office/1.0.0/metadata.json").read_text())
    assert (metadata["camera"], metadata["dataset"]) == ("the office's cameras", "new_dataset:SPEC")
    # The report knows the dataset from the workdir only, in a process that never saw the configuration's file.
    sys.modules.pop("new_dataset")
    record: Any = SimpleNamespace(config=config.to_dict(), folder=tmp_path / "run", own_results=None, results={})
    networks: Any = SimpleNamespace(sizes={"body": (8, 4), "face": (4, 4)})
    opened = open_data(record, networks, "", name=None, data_dir=None, protocol="other_clothes")
    assert (opened.query.name, opened.protocol.name) == ("office", "other_clothes")


def test_a_dataset_of_a_user_module_is_built_and_checked_by_the_commands(
    office: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert check.main([str(office), "--dataset", "new_dataset:SPEC", "--workers", "0"]) == 0
    output = capsys.readouterr().out
    assert f"{office}: office, authors' layout" in output
    assert "other_clothes: " in output
    out = str(tmp_path / "out")
    assert build.main(["--dataset", "new_dataset:SPEC", "--raw", str(office), "--out", out, "--workers", "0"]) == 0
    capsys.readouterr()
    assert check.main([out, "--workers", "0"]) == 0  # the metadata name the module
    assert "office, built" in capsys.readouterr().out
    assert build.main(["--dataset", "new_dataset:SPCE", "--raw", str(office), "--out", out]) == 2
    assert "--dataset has 'new_dataset:SPCE', and new_dataset has no 'SPCE'; did you mean SPEC?" in (
        capsys.readouterr().err
    )


def test_results_on_a_dataset_of_a_user_module_have_a_file_name_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"data": {"name": "celeb"}}')
    config = config_of("new_dataset")
    query: Any = SimpleNamespace(name="office", metadata={})
    place = results_files.find_results_file(config, tmp_path, query, own=False)
    assert place.path.name == "results-on-new_dataset-SPEC.json"


def test_a_dataset_that_cannot_be_used_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, protocols, message in (
        ("Office 1", (UNFILTERED,), "'Office 1' is not a valid name"),
        ("../office", (UNFILTERED,), "is not a valid name"),
        ("office", (), "'office' has no protocols"),
        ("office", (UNFILTERED, UNFILTERED), "two protocols of one name"),
    ):
        with pytest.raises(InputError, match=message):
            DatasetSpec(name, protocols, "our own cameras")
    module: Any = ModuleType("my_datasets")
    module.CELEB, module.OTHER = DatasetSpec("celeb", (UNFILTERED,), "elsewhere"), 3
    monkeypatch.setitem(sys.modules, "my_datasets", module)
    for text, message in (
        ("my_datasets:CELEB", "named 'celeb' like a dataset of the package"),
        ("my_datasets:OTHER", "a int; expected a DatasetSpec"),
        ("no_such_module_here:SPEC", "no_such_module_here cannot be imported"),
        ("ltc", "data.name has 'ltc': there is no such dataset; did you mean ltcc?"),
        ("office", "'module:name' for a DatasetSpec in a module of your own"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            find_dataset(text)


def test_the_earlier_way_to_add_a_dataset_names_the_new_one() -> None:
    with pytest.raises(InputError, match=re.escape("data.name = 'module:SPEC'")):
        extensions.add_dataset("office", None, ())


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
        extra.extra_terms((text,))


def test_two_terms_need_two_names() -> None:
    with pytest.raises(InputError, match="two functions called 'spread'"):
        extra.extra_terms(("new_loss:spread", "new_loss:spread"))
    assert [term.name for term in extra.extra_terms(("new_loss:spread",))] == ["spread"]


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
