"""Classifiers in parts over a model axis: the same step, never a whole one on a device, checkpoints for any mesh."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, Mesh, PartitionSpec

import runs
from configs import base
from deskpro_jax.errors import InputError
from deskpro_jax.runtime import sharding
from deskpro_jax.train.step import NORMS

SCRIPT = Path(__file__).with_name("model_axis.py")


def config(data: int, model: int) -> Any:
    c = base.get_config()
    c.mesh.data, c.mesh.model = data, model
    return c


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What model_axis.py found out on eight simulated devices."""
    code, out, err = runs.finish(runs.start([str(SCRIPT), str(tmp_path_factory.mktemp("saved"))], devices=8))
    assert code == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("identities", ["800", "803"])
@pytest.mark.parametrize("mesh", ["1x8", "4x2"])
def test_losses_and_updated_parameters_are_those_of_one_device(
    measured: dict[str, Any], identities: str, mesh: str
) -> None:
    # In float64, where only what is computed otherwise would differ.
    one, found = measured[identities]["1x1"], measured[identities][mesh]
    assert [sorted(terms) for terms in found["losses"]] == [
        sorted(("ce_face", "kd", "total", "triplet_face", *NORMS))
    ] * 3
    for step, terms in enumerate(found["losses"]):
        for name, value in terms.items():
            np.testing.assert_allclose(value, one["losses"][step][name], rtol=1e-12, err_msg=f"{name}, step {step}")
    assert found["sums"].keys() == one["sums"].keys()
    for name, sums in found["sums"].items():
        np.testing.assert_allclose(sums, one["sums"][name], rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("identities", ["800", "803"])
def test_no_device_holds_the_classifier_or_the_logits_whole(measured: dict[str, Any], identities: str) -> None:
    whole, found = (measured[identities][mesh] for mesh in ("1x1", "1x8"))
    rows, parts, features = 16, 7, 16
    logits = parts * rows * int(identities)
    assert whole["largest"] >= logits
    # Divided by eight; where the identities do not divide, the exchange needs the parts a second time.
    assert (
        found["largest"] <= (1.3 if identities == "803" else 1.0) * max(logits, parts * features * int(identities)) / 8
    )
    assert found["temporary"] < 0.4 * whole["temporary"]
    assert found["kept"] < 0.2 * whole["kept"]


def test_a_checkpoint_of_any_mesh_is_restored_bit_for_bit_on_any_other(measured: dict[str, Any]) -> None:
    assert measured["restored"] == {f"{a} on {b}": True for a in ("1x8", "4x2") for b in ("1x1", "1x8", "2x2", "8x1")}


def test_a_mesh_takes_all_devices_in_groups() -> None:
    assert sharding.make_mesh(config(-1, 1)).axis_names == ("data",)
    for data, model, message in (
        (0, 1, r"mesh\.data is 0"),
        (2, 1, r"mesh\.data is 2, but there are 1 devices: set it to at most 1"),
        (-1, 2, r"mesh\.model is 2, but there are 1 devices"),
        (-1, 0, r"mesh\.model is 0"),
    ):
        with pytest.raises(InputError, match=message):
            sharding.make_mesh(config(data, model))


def test_only_classifiers_and_their_moments_are_split() -> None:
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), (sharding.DATA_AXIS, sharding.MODEL_AXIS))
    tree = {"face_stream": {"classifier": {"kernel": np.zeros((7, 4, 6))}, "neck": {"scale": np.zeros((7, 4))}}}
    places = sharding.placement(mesh, {"mu": tree})
    assert all(place.spec == PartitionSpec() for place in jax.tree.leaves(places))  # one device: nothing to split
    assert sharding.in_step(mesh, tree) is tree


def test_classifiers_are_split_along_what_divides() -> None:
    mesh = AbstractMesh((2, 4), (sharding.DATA_AXIS, sharding.MODEL_AXIS))

    def split(features: int, identities: int) -> PartitionSpec:
        return sharding.placement(mesh, {"classifier": {"kernel": np.zeros((7, features, identities))}})["classifier"][
            "kernel"
        ].spec

    assert split(6, 8) == PartitionSpec(None, None, "model")
    assert split(8, 6) == PartitionSpec(None, "model", None)
    with pytest.raises(
        InputError, match=r"mesh\.model is 4, and neither the 6 identities nor model\.feature_dim \(6\)"
    ):
        split(6, 6)


def test_classifiers_of_any_name_and_their_biases_are_split() -> None:
    mesh = AbstractMesh((2, 4), (sharding.DATA_AXIS, sharding.MODEL_AXIS))
    weights, bias = np.zeros((16, 8)), np.zeros(8)
    tree = {"classifier_3": {"kernel": weights, "bias": bias}, "conv5": {"kernel": weights, "bias": bias}}
    specs = jax.tree.map(lambda place: place.spec, sharding.placement(mesh, {"mu": tree})["mu"])
    along = PartitionSpec(None, sharding.MODEL_AXIS)
    assert specs["classifier_3"] == {"kernel": along, "bias": PartitionSpec(sharding.MODEL_AXIS)}
    assert specs["conv5"] == {"kernel": PartitionSpec(), "bias": PartitionSpec()}
    # Biases of identities that do not divide are small enough to be whole everywhere.
    odd = sharding.placement(mesh, {"classifier": {"kernel": np.zeros((16, 7)), "bias": np.zeros(7)}})["classifier"]
    assert odd["kernel"].spec == PartitionSpec(sharding.MODEL_AXIS, None)
    assert odd["bias"].spec == PartitionSpec()


def test_variables_arrive_as_they_are() -> None:
    mesh = sharding.make_mesh(config(-1, 1))
    tree = {
        "classifier": {"kernel": np.arange(84.0, dtype=np.float32).reshape(7, 4, 3)},
        "scale": np.ones(3, np.float32),
    }
    put = sharding.put_variables(mesh, tree)
    assert put["classifier"]["kernel"].sharding.is_fully_replicated
    jax.tree.map(np.testing.assert_array_equal, put, tree)
