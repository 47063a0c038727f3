"""Networks of a workdir are evaluated on another dataset as they are, and the run's own files stay as they were."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import author_trees
import runs
import small_models
from configs import celeb
from deskpro_jax.cli import convert
from deskpro_jax.config import fields as fields_
from deskpro_jax.data.build import builder
from deskpro_jax.data.load import dataset
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation import evaluate, scoring
from deskpro_jax.storage import files
from deskpro_jax.workdir import layout, transfer


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Celeb-reID as its authors lay it out, with three people to train on; the networks were trained on eight."""
    folder = tmp_path_factory.mktemp("other")
    author_trees.write_parts(author_trees.write("celeb", folder / "raw"), folder / "parts")
    builder.build(
        "celeb", folder / "data", folder / "raw", parts_dir=folder / "parts", allow_different_size=True, warn=print
    )
    return folder / "data"


def config_of(data: Path, variant: str | None = None, **fields: object) -> ConfigDict:
    """The configuration of the other dataset, with the network and image sizes of the paper."""
    config = celeb.get_config(variant)
    config.data.data_dir = str(data)
    config.compilation_cache = "none"
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def record(path: Path) -> dict:
    return json.loads(path.read_text())


@pytest.mark.slow
def test_a_run_is_evaluated_on_another_dataset(
    reference: Path, other: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored, score_networks = [], scoring.score_networks

    def record_networks(config, mesh, splits, networks, variables, *others, **options):
        scored.append((networks, variables))
        return score_networks(config, mesh, splits, networks, variables, *others, **options)

    monkeypatch.setattr(scoring, "score_networks", record_networks)
    folder = Path(shutil.copytree(reference, tmp_path / "run"))
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    runs.run(config_of(other, eval__batch=16, eval__rerank=True, eval__flip=False), folder, "evaluate")
    assert {name: (folder / name).read_bytes() for name in before} == before
    assert {path.name for path in folder.iterdir() if path.is_file()} - set(before) == {
        "results-on-celeb.json",
        "results-on-celeb.md",
    }
    found = record(folder / "results-on-celeb.json")
    assert (found["dataset"], found["trained_on"]) == ("celeb", "synthetic_tiny")
    assert found["config"]["model"] == record(folder / "config.json")["model"]
    assert found["config"]["data"]["body_size"] == [64, 32]
    assert found["checkpoint"] == {"report": "last", "student": 12}
    names = [f"{name}{end}" for name in ("image_number", "first_digit", "none") for end in ("", "_reranked")]
    assert [(r["protocol"], r["stream"]) for r in found["results"]] == [
        (name, stream) for name in names for stream in ("face", "body", "both")
    ]
    assert all(("rerank" in r) == r["protocol"].endswith("_reranked") for r in found["results"])
    text = (folder / "results-on-celeb.md").read_text()
    assert text.startswith("celeb, checkpoint: last, networks trained on synthetic_tiny\n")
    assert "- first_digit: no cameras in this dataset; the first digit of the image number" in text

    ((networks, variables),) = scored
    assert [net.module.body_stream.num_classes for net in networks] == [runs.CLASSES]
    saved = runs.saved_state(folder, "student", runs.config(other))
    read = {
        jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(variables[0])
    }
    runs.assert_same_state(read, {name: saved[name] for name in read})


@pytest.mark.slow
def test_converted_weights_are_evaluated_whatever_their_classifier(tiny_data: Path, tmp_path: Path) -> None:
    source, fields = tmp_path / "source", {"model__backbone": "x0_25", "eval__flip": False}
    small_models.write_workdir(source, tiny_data, "csa_att,debug", **fields)
    runs.run(runs.config(tiny_data, "csa_att,debug", **fields), source, "evaluate")
    exported, folder = tmp_path / "exported.safetensors", tmp_path / "converted"
    assert convert.main([str(source), "--to", str(exported)]) == 0
    assert convert.main([str(exported), "--to", str(folder), "--identities", "3"]) == 0
    config = runs.config(tiny_data, "csa_att,debug", model__backbone="x1_0", model__feature_dim=512, eval__flip=False)
    runs.run(config, folder, "evaluate")
    found = record(folder / "results.json")
    assert (found["dataset"], found["trained_on"]) == ("synthetic_tiny", None)
    assert (found["config"]["model"]["backbone"], found["config"]["model"]["feature_dim"]) == ("x0_25", 32)
    own = [r for r in record(source / "results.json")["results"] if r["stream"] == "body"]
    assert [(r["protocol"], r["stream"]) for r in found["results"]] == [(r["protocol"], "body") for r in own]
    assert [r["mAP"] for r in found["results"]] == pytest.approx([r["mAP"] for r in own], abs=1e-6)
    assert not (folder / "config.json").exists()


def begun(folder: Path, variant: str, **fields: object) -> Path:
    """A workdir of a configuration, without any network."""
    layout.settle_config(folder, runs.config(folder, variant, **fields))
    return folder


def test_the_network_is_the_workdirs_and_the_rest_the_commands(tmp_path: Path, other: Path) -> None:
    folder = begun(tmp_path, "debug", model__attention="released", model__streams="aacd", eval__flip=False)
    given = config_of(other, eval__batch=8)
    found = transfer.as_trained(given, folder)
    assert fields_.network_fields(found) == fields_.network_fields(record(folder / "config.json"))
    assert found.data.body_size == (64, 32)
    assert (found.data.name, found.eval.flip, found.eval.batch) == ("celeb", True, 8)
    assert given.model.backbone == "x1_0"  # what was given stays as it was
    same = runs.config(tmp_path)
    with pytest.raises(InputError, match=r"model\.attention: 'released' there, 'paper' now"):
        transfer.as_trained(same, folder)


@pytest.mark.parametrize(
    ("trained", "asked", "teacher", "expected"),
    [
        ("deskpro", "deskpro", False, (True, "student")),
        ("deskpro", "baseline", False, (True, "none")),
        ("deskpro", "face", False, (False, "student")),
        ("deskpro", "deskpro_star", True, (True, "teacher")),
        ("deskpro", "deskpro_star", False, (True, "student")),
        ("baseline", "deskpro", False, (True, "none")),
        ("teacher", "deskpro", True, (False, "teacher")),
        ("baseline", "face", False, None),
    ],
)
def test_streams_are_those_asked_for_that_there_are_networks_for(
    trained: str, asked: str, teacher: bool, expected: tuple[bool, str] | None, other: Path, tmp_path: Path
) -> None:
    folder = begun(tmp_path, f"{trained},debug")
    if teacher:
        (folder / "teacher" / "checkpoints").mkdir(parents=True)
    if expected is None:
        with pytest.raises(InputError, match=r"was trained with model.body=True and model.face='none'"):
            transfer.as_trained(config_of(other, asked), folder)
        return
    found = transfer.as_trained(config_of(other, asked), folder)
    assert (found.model.body, found.model.face) == expected


def test_a_given_teacher_is_found_again(tmp_path: Path, other: Path) -> None:
    folder = begun(tmp_path, "teacher,debug", teacher__checkpoint="elsewhere")
    assert transfer.as_trained(config_of(other), folder).teacher.checkpoint == "elsewhere"
    assert transfer.as_trained(config_of(other, teacher__checkpoint="here"), folder).teacher.checkpoint == "here"


def test_results_of_another_dataset_never_replace_a_runs_own(tmp_path: Path) -> None:
    ours, theirs = {"query": "1", "gallery": "2"}, {"query": "1", "gallery": "3"}
    assert layout.results_path(tmp_path, "folder", ours) == (tmp_path / "results.json", None)
    files.write_json(tmp_path / "results.json", {"dataset": "folder", "checksums": ours})
    assert layout.results_path(tmp_path, "folder", ours) == (tmp_path / "results.json", None)
    assert layout.results_path(tmp_path, "ltcc", ours) == (tmp_path / "results-on-ltcc.json", None)
    path, _ = layout.results_path(tmp_path, "folder", theirs)  # another folder of images
    assert path.name.startswith("results-on-folder-")
    assert path != layout.results_path(tmp_path, "folder", ours | {"train": "4"})[0]

    begun(tmp_path, "debug")
    assert layout.results_path(tmp_path, "folder", ours) == (tmp_path / "results-on-folder.json", "synthetic_tiny")
    (tmp_path / "results.json").unlink()
    own = layout.results_path(tmp_path, "synthetic_tiny", ours)
    assert own == (tmp_path / "results.json", "synthetic_tiny")
    (tmp_path / "results.json").write_text("[")
    with pytest.raises(InputError, match=r"results.json is damaged"):
        layout.results_path(tmp_path, "synthetic_tiny", ours)


def test_a_protocol_that_cannot_be_scored_is_named_before_anything_is_computed(other: Path) -> None:
    splits = dataset.load("celeb", other, "query"), dataset.load("celeb", other, "gallery")
    everything = scoring.choose_protocols(config_of(other), splits)
    assert [p.name for p in everything.protocols] == ["image_number", "first_digit", "none"]
    config = runs.config(other, data__name="ltcc", eval__protocols=("general", "cc"))
    with pytest.raises(InputError, match=r"eval.protocols asks for what .* not allow:\n  protocol 'cc': .* clothes -1"):
        scoring.choose_protocols(config, (dataset.subset(splits[0], [0]), unknown_clothes(splits[1])))
    config.eval.protocols = ()
    chosen = scoring.choose_protocols(config, (splits[0], unknown_clothes(splits[1])))
    assert [p.name for p in chosen.protocols] == ["general"]
    assert list(chosen.left_out) == ["cc", "sc"]
    nobody = dataset.subset(splits[0], splits[0].identity < 0)
    with pytest.raises(InputError, match=r"(?s)dataset ltcc allow no protocol:.* none of the 0 query images"):
        scoring.choose_protocols(config, (nobody, splits[1]))


def unknown_clothes(split: dataset.ReIDSplit) -> dataset.ReIDSplit:
    split.clothes[:] = -1
    return split


@pytest.mark.parametrize(("name", "value"), [("k1", 0), ("k2", 0), ("lambda", 1.5), ("memory", 0)])
def test_unusable_settings_of_reranking_are_named(name: str, value: float, tmp_path: Path) -> None:
    config = runs.config(tmp_path, **{f"eval__rerank_{name}": value})
    with pytest.raises(InputError, match=f"eval.rerank_{name} is {value}; it must be"):
        runs.run(config, tmp_path, "evaluate")


def test_held_out_identities_need_no_cameras(other: Path) -> None:
    splits = dataset.load("celeb", other, "query"), dataset.load("celeb", other, "gallery")
    assert scoring.held_out_protocol(splits) == evaluate.VALIDATION
    splits[0].camera[:] = -1
    found = scoring.held_out_protocol(splits)
    assert (found.name, found.rule) == ("validation", "none")
