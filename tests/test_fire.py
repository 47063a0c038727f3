"""FIRe2: its clusters between epochs go through stops and resumption, and through changes of their number."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from ml_collections import ConfigDict

import runs
import stand_in
from benchmarks import same_run
from configs import base, synthetic
from deskpro_jax import methods
from deskpro_jax.checkpoints.metadata import saved_tree
from deskpro_jax.errors import InputError, Stopped
from deskpro_jax.losses import clusters
from deskpro_jax.methods import fire
from deskpro_jax.models import initialisers, layers
from deskpro_jax.models.contract import Optimizer, Recipe
from deskpro_jax.models.recomposition import draw_donors
from deskpro_jax.train import optimisers
from deskpro_jax.workdir.networks import load_networks

STEPS = 6  # of an epoch
EPS = (0.4, 0.4, 0.05)  # of the clusters of each epoch: in the last one they are many
COUNTS: dict[int, int] = {}  # of clusters, by epoch


class Trunk(nn.Module):
    """In place of a ResNet's: a map of mean colours, so that it compiles at once."""

    backbone: Any
    attention: str = "none"
    dtype: Any = jnp.float32
    remat: str = "none"

    @nn.compact
    def __call__(self, images: Any, *, train: bool, valid: Any) -> tuple[Any, dict[str, Any]]:
        x = images.reshape(len(images), 4, images.shape[1] // 4, 2, images.shape[2] // 2, 3).mean((2, 4))
        return layers.Pointwise(self.backbone.features(4), kernel_init=initialisers.normal(0.5), name="conv1")(x), {}


class Tail(nn.Module):
    """In place of a ResNet's: nothing."""

    backbone: Any
    last_stride: int
    dtype: Any
    remat: str

    def __call__(self, x: Any, *, train: bool, valid: Any) -> Any:
        return nn.relu(x)


@pytest.fixture(scope="module")
def small() -> Iterator[None]:
    """FIRe2 on a network of one layer, with another distance of clusters in the third epoch."""
    cluster = clusters.cluster_identities

    def found(features: Any, identity: Any, **options: Any) -> clusters.Clusters:
        epoch = _epoch()
        result = cluster(features, identity, **{**options, "eps": EPS[epoch]})
        COUNTS[epoch] = len(result.centres)
        return result

    def _epoch() -> int:
        frame: Any = sys._getframe()
        while frame.f_code.co_name != "work":
            frame = frame.f_back
        return int(frame.f_locals["epoch"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fire, "ResNetTrunk", Trunk)
        patch.setattr(fire, "ResNetTail", Tail)
        patch.setattr("deskpro_jax.losses.fine_classes.cluster_identities", found)
        initialisers._init_and_shapes.cache_clear()
        yield
    initialisers._init_and_shapes.cache_clear()


@pytest.fixture(scope="module")
def config(small: None, tiny_data: Path) -> ConfigDict:
    c = synthetic.get_config("fire,debug")
    fields = {
        "data.data_dir": str(tiny_data),
        "train.epochs": 3,
        "train.log_every": 1,
        "eval.every": 0,
        "eval.baselines": False,
    }
    c.update_from_flattened_dict({**fields, "compilation_cache": "none"})
    return c


@pytest.fixture(scope="module")
def undisturbed(config: ConfigDict, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    runs.run(config, folder)
    return folder


def goes_on(config: ConfigDict, folder: Path, undisturbed: Path) -> None:
    """Runs to the end, which has to be that of the undisturbed run."""
    runs.run(config, folder)
    own, expected = (same_run.saved(path / "fire") for path in (folder, undisturbed))
    assert same_run.lines(folder / "fire") == same_run.lines(undisturbed / "fire")
    last = max(expected)
    assert own[last].keys() == expected[last].keys()
    for name, value in expected[last].items():
        np.testing.assert_array_equal(own[last][name], value, err_msg=name)


def test_losses_of_clusters_begin_with_them(undisturbed: Path) -> None:
    terms = runs.losses(undisturbed / "fire")
    assert len(terms) == 3 * STEPS
    for step, values in terms.items():
        assert np.isfinite(values["total"])
        assert (values["attribute_body"] > 0) == (values["recomposition_body"] > 0) == (step > STEPS)
    weighted = terms[1]["ce_body"]
    assert terms[1]["total"] == pytest.approx(weighted)
    last = terms[3 * STEPS]
    total = last["ce_body"] + last["triplet_body"] + last["attribute_body"] + 0.3 * last["recomposition_body"]
    assert last["total"] == pytest.approx(total, rel=1e-5)


def test_the_number_of_clusters_changes_on_the_way(undisturbed: Path) -> None:
    second, third = COUNTS[1], COUNTS[2]
    assert second.bit_length() < third.bit_length()  # more places for centres, and another program
    saved: Any = saved_tree(undisturbed / "fire" / "checkpoints")
    places, _ = saved["params"]["loss"]["attribute_body"]["centres"].shape
    assert places // 2 < third <= places
    with np.load(undisturbed / "fire" / "epoch_fields.npz") as stored:
        assert set(stored["fine_total"]) == {third}
        assert len(np.unique(stored["fine_own"])) == third
    assert load_networks(undisturbed).phases[0].steps == 3 * STEPS


@pytest.mark.parametrize("step", [STEPS + 2, 2 * STEPS, 2 * STEPS + 3])
def test_stopped_anywhere_it_goes_on_as_if_nothing_had_happened(
    step: int, config: ConfigDict, undisturbed: Path, tmp_path: Path
) -> None:
    with stand_in.moments(stand_in.sender(f"SIGTERM@step-fire-{step - 1}")), pytest.raises(Stopped):
        runs.run(config, tmp_path)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # ignored since then
    goes_on(config, tmp_path, undisturbed)


class Killed(Exception):
    pass


@pytest.mark.parametrize("step", [2 * STEPS + 2])
def test_killed_in_the_middle_of_an_epoch_it_begins_the_epoch_with_the_same_clusters(
    step: int, config: ConfigDict, undisturbed: Path, tmp_path: Path
) -> None:
    def reached(moment: str) -> None:
        if moment == f"step-fire-{step}":
            raise Killed

    with stand_in.moments(reached), pytest.raises(Killed):
        runs.run(config, tmp_path)
    goes_on(config, tmp_path, undisturbed)


def test_an_image_takes_the_appearance_of_another_fine_class_of_the_batch() -> None:
    fine, valid = jnp.asarray([0, 0, 1, 2, 3]), jnp.asarray([True, True, True, True, False])
    drawn = np.asarray(draw_donors(jax.random.key(0), fine, valid, 4000))
    assert set(drawn[:, 0]) == {2, 3}
    assert set(drawn[:, 2]) == {0, 1, 3}
    counts = np.bincount(drawn[:, 2], minlength=5)
    np.testing.assert_allclose(counts[[0, 1, 3]] / 4000, 1 / 3, atol=0.05)
    alone = draw_donors(jax.random.key(0), jnp.zeros(3, int), jnp.ones(3, bool), 2)
    np.testing.assert_array_equal(alone, [[0, 1, 2]] * 2)


def test_identities_of_one_and_two_images_have_clusters() -> None:
    features = np.eye(6)[[0, 1, 1, 2, 3]] + 0.01
    found = clusters.cluster_identities(features, np.array([4, 5, 5, 7, 7]))
    # As published: so few images have too many missing neighbours for a cluster of two, even of equal ones.
    assert found.label.tolist() == [0, 1, 2, 3, 4]
    assert found.first.tolist() == [0, 1, 1, 3, 3]
    assert found.number.tolist() == [1, 2, 2, 2, 2]
    assert len(found.centres) == 5


def test_without_scikit_learn_the_extra_is_named_before_the_first_epoch(
    config: ConfigDict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.cluster", None)
    with pytest.raises(InputError, match=r"clustering between epochs needs sklearn.*deskpro_jax\[cluster\]"):
        runs.run(config, tmp_path)


def test_an_optimiser_may_begin_late_and_begin_again() -> None:
    train = base.get_config().train
    train.weight_decay = 0.1
    several = {"": Optimizer("adam"), "late": Optimizer("adam", start_epoch=2)}
    recipe = Recipe((), several, lambda path: "late" if path[0] == "late" else "")
    optimizer = optimisers.of_recipe(recipe, lambda count: 0.1 * (1 + count), train, steps_per_epoch=2)
    params: Any = {name: {"kernel": jnp.ones(2)} for name in ("early", "late")}
    gradient: Any = jax.tree.map(jnp.ones_like, params)
    state = optimizer.init(params)
    moved = []
    for _ in range(5):
        updates, state = optimizer.update(gradient, state, params)
        moved.append({name: float(-updates[name]["kernel"][0]) for name in params})
        params = optax.apply_updates(params, updates)
    assert [step["late"] for step in moved[:4]] == [0] * 4
    assert moved[4]["late"] == pytest.approx(0.5, rel=1e-4)  # a first step of Adam, at the rate of the fifth
    again = optimisers.anew(optimizer, params, state)
    updates, _ = optimizer.update(jax.tree.map(lambda leaf: -leaf, gradient), again, params)
    assert float(updates["early"]["kernel"][0]) == pytest.approx(
        0.6, rel=1e-4
    )  # opposite moments are forgotten, the rate is not


def test_fire_asks_for_its_clusters_from_the_configured_epoch_on() -> None:
    (phase,) = methods.phases(synthetic.get_config("full,fire"))
    weights = {term.name: term.weight for term in phase.recipe.losses}
    assert weights.pop("ce_body") == 1
    for epoch, factor in ((24, 0), (25, 1)):
        values = {name: float(weight(epoch)) for name, weight in weights.items() if callable(weight)}
        expected = {"triplet_body": 1.0, "attribute_body": 1.0, "recomposition_body": 0.3}
        assert values == {name: factor * value for name, value in expected.items()}
