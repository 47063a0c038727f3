"""Weights that come with the package: found by name wherever a file is taken, small, and described by their cards."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import jax
import numpy as np
import pytest

import small_models
from configs import pretraining, synthetic
from deskpro_jax import Embedder, experiment
from deskpro_jax.cli import version
from deskpro_jax.cli.convert import main
from deskpro_jax.data.load import dataset
from deskpro_jax.errors import InputError
from deskpro_jax.storage.checksums import file_sha256
from deskpro_jax.train import teacher
from deskpro_jax.weights import export, load, pretrained
from deskpro_jax.weights.card import Card
from deskpro_jax.weights.families import Stream
from deskpro_jax.weights.read import read_file
from deskpro_jax.workdir.layout import settle_config
from deskpro_jax.workdir.networks import load_networks
from test_start import begin, configuration, same, stream

INSTALLED = pretrained.FOLDER
DESKPRO, OSNET = "pretrained:drawn_deskpro_x0_25", "pretrained:drawn_osnet_x0_25"
WIDTH = {"model__feature_dim": 32, "model__attention": "paper"}  # of the debug size


@pytest.fixture(scope="module")
def folder(untrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in place of the package's, with networks that nothing trained."""
    folder = tmp_path_factory.mktemp("pretrained")
    path = folder / "drawn_deskpro_x0_25.safetensors"
    assert main([str(untrained), "--to", str(path), "--compact"]) == 0
    osnet = Stream("osnet", "", "x0_25", "none", 512, None)
    entries = load.stream_entries("osnet", osnet, "abcd")
    tensors = export.to_tensors("osnet", osnet, "abcd", load.initial_variables(osnet, "abcd", 0), 1, {})
    card = Card({}, "", None, None, None, {}, {}, True)
    export.write(folder / "drawn_osnet_x0_25.safetensors", export.compacted(tensors, entries), {}, card)
    return folder


@pytest.fixture(autouse=True)
def in_place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", folder)
    pretrained._warn.cache_clear()


def close(found: np.ndarray, expected: np.ndarray) -> bool:
    """Returns whether numbers are the same but for rounding to float16."""
    return np.allclose(found, expected, rtol=1e-3, atol=1e-6)


def test_a_name_is_a_file_of_the_package_and_anything_else_a_path(folder: Path, tmp_path: Path) -> None:
    assert pretrained.names() == ("drawn_deskpro_x0_25", "drawn_osnet_x0_25")
    assert pretrained.find_weights(OSNET) == folder / "drawn_osnet_x0_25.safetensors"
    assert pretrained.find_weights("~/a.pth") == Path("~/a.pth").expanduser()
    assert pretrained.name_of(pretrained.find_weights(OSNET)) == OSNET
    assert pretrained.name_of(tmp_path / "a.pth") == "a.pth"


@pytest.mark.parametrize("name", ["torch", "", "drawn_osnet_x0_25.safetensors", "drawn_osnet_x1_0", "../x"])
def test_an_unknown_name_is_one_line_with_the_names_that_exist(name: str) -> None:
    with pytest.raises(InputError) as error:
        Embedder(f"pretrained:{name}")
    text = str(error.value)
    assert text.startswith(f"no weights pretrained:{name} come with the package")
    assert text.endswith(f"the ones that do: {DESKPRO}, {OSNET}.")
    assert ("did you mean drawn_osnet_x0_25" in text) == name.startswith("drawn")
    assert "\n" not in text


def test_an_unknown_name_in_a_configuration_is_refused_before_any_work() -> None:
    for field in ("init.body", "init.face", "init.teacher", "teacher.checkpoint"):
        c = configuration(**{field.replace(".", "__"): "pretrained:drawn_osnet"})
        with pytest.raises(InputError, match=rf"{field}: no weights pretrained:drawn_osnet come.*did you mean"):
            experiment.validate(c)
        experiment.validate(c, "evaluate")  # a run that is over needs them no more
    experiment.validate(configuration(init__body=DESKPRO, init__face=OSNET, init__teacher=OSNET))


def test_streams_start_from_a_whole_deskpro_and_from_an_osnet(untrained: Path, folder: Path, tmp_path: Path) -> None:
    c = configuration(**WIDTH, init__body=DESKPRO, init__face=OSNET, init__teacher=DESKPRO)
    before, after = begin(c, tmp_path)
    networks = {phase.name: phase for phase in load_networks(untrained, every_phase=True).phases}
    body, held = stream(after, "body_stream"), networks["student"].stream_variables("body")
    for part in ("trunk", "branches", "attention", "neck"):
        assert jax.tree.all(jax.tree.map(close, body["params"][part], held["params"][part])), part
    assert same(body["params"]["classifier"], stream(before, "body_stream")["params"]["classifier"])
    record = json.loads((tmp_path / "start.json").read_text())
    assert record["body"]["source"] == DESKPRO
    assert record["body"]["sha256"] == file_sha256(folder / "drawn_deskpro_x0_25.safetensors")
    assert "the file has nothing for classifier: initial values stay" in record["body"]["notes"]
    assert not any("no part in this model" in note for note in record["body"]["notes"])  # those are the face student's
    assert record["student"]["source"] == OSNET
    _, taught = begin(c, tmp_path / "teacher", "teacher")
    held = networks["student"].stream_variables("face")
    neck = stream(taught, "face_stream")["batch_stats"]["neck"]
    jax.tree.map(np.testing.assert_array_equal, neck, held["batch_stats"]["neck"])
    record = json.loads((tmp_path / "teacher" / "start.json").read_text())
    assert record["teacher"]["notes"][0] == "the file has no teacher: its face student is read"


def test_a_workdir_keeps_the_name_and_not_a_path(tmp_path: Path) -> None:
    c = configuration(init__body=DESKPRO)
    settle_config(tmp_path, c)
    assert json.loads((tmp_path / "config.json").read_text())["init"]["body"] == DESKPRO


def test_an_embedder_gives_the_workdirs_embeddings_and_says_once_what_the_networks_know(
    untrained: Path, tiny_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    query = dataset.load("synthetic_tiny", tiny_data, "query")
    photos, faces = small_models.images(query)[:6], small_models.images(query, "face")[:6]
    with caplog.at_level(logging.WARNING):
        ours = [Embedder(DESKPRO, batch=8) for _ in range(2)][1]
    assert [r.message for r in caplog.records].count(
        f"{DESKPRO} was trained on drawn people only: for trying things out, not for photos of people."
    ) == 1
    assert (ours.body_size, ours.face_size, ours.flip, ours.sizes_known) == ((64, 32), (32, 32), False, True)
    expected = Embedder(untrained, batch=8).embed(photos, faces)
    np.testing.assert_allclose(ours.embed(photos, faces), expected, atol=5e-3)
    caplog.clear()
    load_networks(untrained)
    assert "drawn people" not in caplog.text


def test_a_compact_file_has_only_what_embeddings_need_and_goes_through_a_workdir(
    folder: Path, untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, small = tmp_path / "whole.safetensors", folder / "drawn_deskpro_x0_25.safetensors"
    assert main([str(untrained), "--to", str(whole)]) == 0
    assert small.stat().st_size < 0.3 * whole.stat().st_size
    tensors = read_file(small).tensors
    assert not [name for name in tensors if re.search(r"classifier|num_batches_tracked|branches\.\d", name)]
    assert {value.dtype for value in tensors.values() if value.ndim > 1} == {np.dtype(np.float16)}
    assert {value.dtype for value in tensors.values() if value.ndim == 1} == {np.dtype(np.float32)}
    assert main([DESKPRO, "--to", str(tmp_path / "run")]) == 0
    record = json.loads((tmp_path / "run" / "conversion.json").read_text())
    assert (record["source"], record["sha256"]) == (DESKPRO, file_sha256(small))
    assert load_networks(tmp_path / "run").checksum == load_networks(DESKPRO).checksum
    assert version.main([DESKPRO, "--json"]) == 0
    assert load_networks(DESKPRO).checksum in capsys.readouterr().out
    again = tmp_path / "again.safetensors"
    assert main([str(tmp_path / "run"), "--to", str(again)]) == 0
    assert not [name for name in read_file(again).tensors if "classifier" in name]  # none are made up
    assert main([DESKPRO, "--to", str(tmp_path / "four"), "--identities", "4"]) == 0
    assert "note: body: the file has no classifiers, 7 of 4 drawn anew" in capsys.readouterr().out
    assert main([DESKPRO, "--to", str(tmp_path / "no"), "--compact"]) == 2
    assert "--compact cannot be used for a weights file" in capsys.readouterr().err


def test_a_streams_trunk_and_global_branch_leave_as_an_osnet_that_starts_others(
    untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "osnet.safetensors"
    as_osnet = [str(untrained), "--to", str(path), "--family", "osnet"]
    assert main(as_osnet) == 2
    assert "add --network body or face" in capsys.readouterr().err
    assert main([*as_osnet, "--network", "face", "--compact"]) == 0
    assert path.stat().st_size < 1e6
    _, after = begin(configuration(**WIDTH, init__body=str(path)), tmp_path / "run")
    face = load_networks(untrained).phases[0].stream_variables("face")["params"]
    body = stream(after, "body_stream")["params"]
    assert jax.tree.all(jax.tree.map(close, body["trunk"], face["trunk"]))
    for branch in range(3):  # the global one, three times
        copies = jax.tree.map(lambda leaf, i=branch: leaf[i], body["branches"])
        assert jax.tree.all(jax.tree.map(close, copies, jax.tree.map(lambda leaf: leaf[0], face["branches"])))


def test_a_number_beyond_float16_keeps_its_kernel_in_float32() -> None:
    osnet = Stream("osnet", "", "x0_25", "none", 512, None)
    entries = load.stream_entries("osnet", osnet, "abcd")
    kept = export.compacted({"conv1.conv.weight": np.full((2, 2), 7e4, np.float32)}, entries)
    np.testing.assert_array_equal(kept["conv1.conv.weight"], np.full((2, 2), 7e4, np.float32))


def test_a_file_without_classifiers_is_no_teacher_of_known_people() -> None:
    with pytest.raises(InputError, match="its classifiers know no identities"):
        teacher._check_fits(Stream("teacher", "face_net.", "x0_25", "none", 32, None), configuration().model, 8)


def test_every_installed_file_is_the_one_of_its_card_and_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrained, "FOLDER", INSTALLED)
    cards = {path.stem for path in pretrained.FOLDER.glob("*.md")} - {"README"}
    assert cards == set(pretrained.names())
    for name in pretrained.names():
        path = pretrained.FOLDER / f"{name}.safetensors"
        card = path.with_suffix(".md").read_text()
        assert f"`{path.name}`: {path.stat().st_size} bytes, SHA-256 `{file_sha256(path)}`" in card
        assert path.stat().st_size <= (1.5e6 if "osnet" in name else 3e6)
        assert "osnet" in name or load_networks(f"pretrained:{name}").record.sizes_known


@pytest.mark.parametrize("variant", ["", "debug"])
def test_the_configuration_that_makes_them_has_the_demos_networks_and_other_people(variant: str) -> None:
    c, demo = pretraining.get_config(variant), synthetic.get_config(variant)
    experiment.validate(c)
    assert c.data.build_seed != demo.data.build_seed
    assert (c.init.body, c.init.face, c.init.teacher) == ("", "", "")
    assert dict(c.model) == dict(demo.model)
    assert (c.data.body_size, c.data.face_size) == (demo.data.body_size, demo.data.face_size)
