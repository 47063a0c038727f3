"""The contract of methods: OSNet by itself and a user's method go through every command that DeSKPro goes through."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import runs
import small_models
from configs import base, synthetic
from deskpro_jax import Embedder, experiment, methods
from deskpro_jax.cli import convert, report, version
from deskpro_jax.data.load import dataset
from deskpro_jax.errors import InputError
from deskpro_jax.models.contract import Counts, EpochStart, LossTerm, PhaseSpec, Recipe, TrainingImages
from deskpro_jax.train import optimisers
from deskpro_jax.train.epoch_work import EpochWork

EXAMPLES = runs.ROOT / "docs" / "examples"


@pytest.fixture(scope="module")
def user_modules() -> Iterator[None]:
    """The folder of the examples can be imported from, as that of a configuration is."""
    sys.path.append(str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


@pytest.fixture(scope="module")
def trained(user_modules: None, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A workdir of OSNet with the triplet loss, and one of the method of the documentation, two epochs each."""
    import new_method

    folders = {}
    for name, config in (
        ("osnet", synthetic.get_config("osnet_triplet,debug")),
        ("new_method", new_method.get_config("debug")),
    ):
        config.data.data_dir = str(tiny_data)
        config.compilation_cache = "none"
        folders[name] = tmp_path_factory.mktemp(name) / "run"
        results = experiment.run(config, folders[name])
        assert {result.stream for result in results} == {"body"}
    return folders


def test_a_method_is_trained_in_a_phase_of_its_own_name(trained: dict[str, Path]) -> None:
    for name, folder in trained.items():
        assert sorted(path.parent.name for path in folder.glob("*/checkpoints")) == [name]
        terms = runs.losses(folder / name)
        assert {"ce_body", "triplet_body", "total"} <= set(terms[1])
        assert np.isfinite([values["total"] for values in terms.values()]).all()
    terms = {term.name for term in methods.phases(synthetic.get_config("osnet,debug"))[0].recipe.losses}
    assert terms == {"ce_body"}


def test_a_method_is_evaluated_embedded_reported_and_served(
    trained: dict[str, Path], tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = dataset.load("synthetic_tiny", tiny_data, "query")
    for name, folder in trained.items():
        embedder = Embedder(folder)
        dimension = {"osnet": 32, "new_method": 64}[name]
        assert (embedder.streams, embedder.parts, embedder.dimension) == (("body",), 1, dimension)
        rows = embedder.embed(small_models.images(split))
        np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
        kept = np.load(folder / "embeddings" / "query.npy")
        # OSNet is evaluated as torchreid does it: without mirror images, and features keep their lengths.
        again = Embedder(folder, flip=name != "osnet").embed(small_models.images(split))
        np.testing.assert_allclose(again, kept / np.linalg.norm(kept, axis=1, keepdims=True), atol=1e-4)
        assert report.main([str(folder), "--out", str(tmp_path / f"{name}.html")]) == 0
        assert f"{name}" in (tmp_path / f"{name}.html").read_text()
        assert convert.main([str(folder), "--to", str(tmp_path / f"{name}.stablehlo")]) == 0
        assert version.main([str(folder)]) == 0
    capsys.readouterr()
    for ending in ("safetensors", "onnx"):
        assert convert.main([str(trained["osnet"]), "--to", str(tmp_path / f"osnet.{ending}")]) == 0
    assert convert.main([str(trained["new_method"]), "--to", str(tmp_path / "mine.onnx")]) == 0
    assert convert.main([str(trained["new_method"]), "--to", str(tmp_path / "mine.safetensors")]) == 2
    assert "the method 'new_method' has no published names" in capsys.readouterr().err
    assert not (tmp_path / "mine.safetensors").exists()
    assert Embedder(tmp_path / "osnet.safetensors").checksum == Embedder(trained["osnet"]).checksum


def test_a_workdir_of_a_backbone_of_a_fork_goes_through_the_commands(
    user_modules: None, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small_models.write_workdir(
        tmp_path / "run", tiny_data, "csa,debug", model__backbone="new_backbone:PLAIN", model__feature_dim=8
    )
    assert Embedder(folder).embed([np.zeros((64, 32, 3), np.uint8)]).shape == (1, 56)
    assert report.main([str(folder), "--quick"]) == 0
    assert version.main([str(folder)]) == 0
    assert convert.main([str(folder), "--to", str(tmp_path / "mine.stablehlo")]) == 0
    capsys.readouterr()
    assert convert.main([str(folder), "--to", str(tmp_path / "mine.onnx")]) == 0
    assert convert.main([str(folder), "--to", str(tmp_path / "mine.safetensors")]) == 2
    assert "the backbone 'new_backbone:PLAIN' has no published names" in capsys.readouterr().err
    config = json.loads((folder / "config.json").read_text())
    config["model"]["backbone"] = "gone_from_here:PLAIN"
    (folder / "config.json").write_text(json.dumps(config))
    for command in (
        lambda: convert.main([str(folder), "--to", str(tmp_path / "b.stablehlo")]),
        lambda: report.main([str(folder)]),
    ):
        command()
        assert "gone_from_here cannot be imported" in capsys.readouterr().err
    assert version.main([str(folder)]) == 0
    assert "gone_from_here cannot be imported" in capsys.readouterr().out


def test_work_between_epochs_adds_fields_to_the_batch_and_is_resumed_and_losses_know_the_outfits(
    user_modules: None, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import new_method

    epochs: list[int] = []
    counted: set[Counts] = set()

    def no_parameters(counts: Counts, rng: np.random.Generator) -> dict[str, np.ndarray]:
        counted.add(counts)
        return {"unused": np.zeros(1, np.float32)}

    def cluster(epoch: int, images: TrainingImages) -> EpochStart:
        epochs.append(epoch)
        embeddings = images.embed()
        assert sorted(set(images.identity)) == list(range(len(set(images.identity))))
        assert embeddings.shape == (len(dataset.load("synthetic_tiny", tiny_data, "train")), new_method.DIM)
        return EpochStart({"cluster": (embeddings[:, 0] > np.median(embeddings[:, 0])).astype(np.int32)})

    plain = new_method.recipe

    def recipe(config):
        term = LossTerm("cluster", lambda values: values.inputs["cluster"].mean())
        clothes = LossTerm(
            "clothes", lambda values: values.inputs["clothes"].mean(dtype=float), 0.0, parameters=no_parameters
        )
        return replace(plain(config), losses=(*plain(config).losses, term, clothes), between_epochs=cluster)

    monkeypatch.setattr(new_method, "recipe", recipe)
    config = new_method.get_config("debug")
    config.update_from_flattened_dict({"data.data_dir": str(tiny_data), "eval.every": 0, "compilation_cache": "none"})
    experiment.run(config, tmp_path)
    assert epochs == [0, 1]
    terms = runs.losses(tmp_path / "new_method")
    assert 0 < terms[1]["cluster"] < 1
    outfits = len(dataset.clothes_classes(dataset.load("synthetic_tiny", tiny_data, "train")))
    assert counted == {Counts(8, outfits)}
    assert 0 < terms[1]["clothes"] < outfits
    # A run that goes on in the middle of an epoch has the fields with which it began.
    work = EpochWork(recipe(config), tmp_path / "new_method", 6, lambda _: pytest.fail("again"))
    batch = {"index": np.array([0, 2, -1], np.int32)}
    with np.load(tmp_path / "new_method" / "epoch_fields.npz") as stored:
        expected = stored["cluster"][[0, 2, 0]]
    assert work.begin(8, None) is None
    np.testing.assert_array_equal(work.add_fields(batch)["cluster"], expected)
    assert epochs == [0, 1]


def test_a_method_that_does_not_exist_is_named_with_near_matches() -> None:
    config = synthetic.get_config("debug")
    config.model.name = "osnett"
    with pytest.raises(InputError, match=r"model\.name has 'osnett'.*did you mean osnet "):
        methods.phases(config)
    config.model.name = "json"
    with pytest.raises(InputError, match=r"model\.name is 'json', whose module has no function 'build'"):
        methods.phases(config)
    config.model.name, config.model.face = "osnet", "student"
    with pytest.raises(InputError, match="has a body stream only"):
        methods.phases(config)


def test_a_recipe_may_have_an_optimiser_for_each_label_of_its_parameters() -> None:
    params = {"network": {"kernel": np.ones(2, np.float32)}, "other": {"kernel": np.ones(2, np.float32)}}
    recipe = Recipe((), optimizer={"a": "adam", "b": "adam"}, label=lambda path: "a" if path[0] == "network" else "b")
    state = optimisers.of_recipe(recipe, 0.1, base.get_config().train).init(params)
    assert set(state.inner_states) == {"a", "b"}  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"the recipe names 'lion'; expected one of adam"):
        optimisers.of_recipe(Recipe((), optimizer="lion"), 0.1, base.get_config().train)


def test_a_phase_says_what_it_needs() -> None:
    specs: dict[str, PhaseSpec] = {spec.name: spec for spec in methods.phases(synthetic.get_config("debug"))}
    assert list(specs) == ["teacher", "student"]
    assert specs["student"].recipe.teacher == "teacher"
    assert specs["teacher"].recipe.requires == ("face",)
    assert specs["student"].recipe.fields == ("cloth_mask",)
    assert not specs["teacher"].embeds
