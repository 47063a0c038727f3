"""PRCC's figures are those of the public evaluation code: multi-shot, and single-shot for given draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deskpro_jax.data.datasets.find import find_protocols
from deskpro_jax.evaluation import protocols
from deskpro_jax.evaluation.matching_rules import Labels
from deskpro_jax.evaluation.similarity import equal_parts

GOLDEN = np.load(Path(__file__).parent / "golden" / "prcc_protocol.npz")
SETTINGS = {"same_clothes": "same", "cross_clothes": "cross"}


def split(*letters: str) -> tuple[np.ndarray, Labels]:
    """Returns features and labels of the images of some cameras, as a built PRCC numbers them."""
    joined = (np.concatenate([GOLDEN[f"{letter}/{name}"] for letter in letters]) for name in ("ids", "cameras"))
    features = np.concatenate([GOLDEN[f"{letter}/features"] for letter in letters])
    identity, camera = joined
    return features, Labels(identity, camera, (camera == 2).astype(int))


def evaluated(name: str) -> protocols.ProtocolResult:
    (query, query_labels), (gallery, gallery_labels) = split("B", "C"), split("A")
    (protocol,) = find_protocols("prcc", [name])
    similarity = equal_parts(query.shape[1], {"all": 1})
    ranks = len(gallery)
    labels = query_labels, gallery_labels
    return protocols.evaluate_protocol(protocol, query, gallery, *labels, similarity=similarity, max_rank=ranks)


@pytest.mark.parametrize("setting", SETTINGS)
def test_multi_shot_is_the_public_codes(setting: str) -> None:
    result, golden = evaluated(f"{setting}_multi_shot"), f"multi_shot/{SETTINGS[setting]}"
    (scores,) = result.scores
    np.testing.assert_allclose(scores.cmc, GOLDEN[f"{golden}/cmc"], atol=1e-12)
    np.testing.assert_allclose(scores.average_precision, GOLDEN[f"{golden}/ap"], atol=1e-12)
    assert result.figures["mAP"] == pytest.approx(float(GOLDEN[f"{golden}/map"]), abs=1e-12)
    assert scores.dropped == {}
    assert result.gallery == len(GOLDEN["A/ids"])


@pytest.mark.parametrize("setting", SETTINGS)
def test_single_shot_is_the_mean_over_the_draws(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    draws = GOLDEN["single_shot/gallery_indices"]
    monkeypatch.setattr(protocols, "draw_single_shot", lambda identity, seed, draw: draws[draw])
    result, golden = evaluated(f"{setting}_single_shot"), f"single_shot/{SETTINGS[setting]}"
    width = draws.shape[1]
    cmc = np.stack([scores.cmc[:width] for scores in result.scores])
    np.testing.assert_allclose(cmc, GOLDEN[f"{golden}/cmc_of_draws"], atol=1e-12)
    np.testing.assert_allclose([s.map for s in result.scores], GOLDEN[f"{golden}/map_of_draws"], atol=1e-12)
    assert result.figures["mAP"] == pytest.approx(float(GOLDEN[f"{golden}/map"]), abs=1e-12)
    assert result.figures["R-1"] == pytest.approx(float(GOLDEN[f"{golden}/cmc"][0]), abs=1e-12)
    assert len(result.scores) == len(draws) == 10
