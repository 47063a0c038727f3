"""Files are told apart by the names in them, whatever wraps them and however damaged their shapes are."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data_prep.identify import UNKNOWN, describe, unwrap

GOLDEN = Path(__file__).parent / "golden"


def zeros(*names: str, shape: tuple[int, ...] = (2, 2)) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape, np.float32) for name in names}


def from_manifest(name: str, part: str | None = None) -> dict[str, np.ndarray]:
    shapes = json.loads((GOLDEN / f"{name}_manifest.json").read_text())
    return {n: np.broadcast_to(np.float32(0), s) for n, s in (shapes[part] if part else shapes).items()}


def resnet_body(blocks: tuple[int, ...] = (3, 4, 6, 3)) -> list[str]:
    return [f"body.layer{i}.{j}.conv1.weight" for i, count in enumerate(blocks, 1) for j in range(count)]


KNOWN = {
    "a RetinaFace detector (mobilenet0.25)": {
        "body.stage1.0.0.weight": np.zeros((8, 3, 3, 3)),
        **zeros("ClassHead.0.conv1x1.weight"),
    },
    "a RetinaFace detector (resnet50)": zeros("ClassHead.0.conv1x1.weight", "body.conv1.weight", *resnet_body()),
    "a RetinaFace detector (a body not known here)": zeros("ssh1.conv3X3.0.weight", *resnet_body((3, 4, 23, 3))),
    "an SCHP parser (20 classes, LIP)": zeros("fushion.3.weight", shape=(20, 256, 1, 1)),
    "an SCHP parser (18 classes, ATR)": zeros("fushion.3.weight", shape=(18, 256, 1, 1)),
    "an SCHP parser (7 classes, Pascal)": zeros("fushion.3.weight", shape=(7, 256, 1, 1)),
    "an SCHP parser (9 classes, no scheme known here)": zeros("fushion.3.weight", shape=(9, 256, 1, 1)),
    "a GPEN restorer (256 px)": zeros(
        "generator.style.1.weight", "ecd0.0.0.weight", *(f"ecd{i}.0.1.weight" for i in range(1, 7))
    ),
    "a GPEN restorer (512 px)": zeros(
        "generator.style.1.weight", "ecd0.0.0.weight", *(f"ecd{i}.0.1.weight" for i in range(1, 8))
    ),
    "a StyleGAN2 generator without GPEN's encoder": zeros("generator.to_rgb1.conv.weight"),
    "a MobileNetV1 classifier, of which RetinaFace uses the body": zeros(
        "stage1.0.0.weight", "stage3.1.3.weight", "fc.weight"
    ),
    "a ResNet classifier or body": zeros("conv1.weight", "layer4.0.conv1.weight", "fc.weight"),
    "a DeSKPro network": from_manifest("deskpro"),
    "a LightMBN network": from_manifest("lmbn"),
    "an OSNet network": from_manifest("osnet", "osnet_x0_25"),
    UNKNOWN: zeros("features.0.weight", "classifier.1.weight"),
}


@pytest.mark.parametrize("words", KNOWN)
@pytest.mark.parametrize("wrapper", ["", "module.", "model.module."])
def test_a_network_is_described_whatever_wraps_it(words: str, wrapper: str) -> None:
    assert describe({wrapper + name: value for name, value in KNOWN[words].items()}) == words


def test_every_kind_of_file_has_its_own_words_and_a_part_is_enough() -> None:
    body_stream = {n: v for n, v in KNOWN["a DeSKPro network"].items() if n.startswith("nocloth_net.")}
    assert describe(body_stream) == "a DeSKPro network"
    assert describe(zeros("context_encoding.bottleneck.0.weight")).startswith("an SCHP parser (unknown classes")


def test_odd_shapes_and_nothing_at_all_raise_nothing() -> None:
    assert describe({}) == UNKNOWN
    assert describe({"": np.zeros(())}) == UNKNOWN
    for words, tensors in KNOWN.items():
        kind = words.split(" (")[0]
        assert describe({name: np.zeros(()) for name in tensors}).startswith(kind)


def test_only_a_wrapper_around_all_names_goes() -> None:
    assert list(unwrap({"module.a": 1, "module.b": 2})) == ["a", "b"]
    assert list(unwrap({"model.net.a": 1, "model.net.b": 2})) == ["a", "b"]
    assert list(unwrap({"module.a": 1, "b": 2})) == ["module.a", "b"]
    assert list(unwrap({"modulea": 1})) == ["modulea"]
    assert unwrap({}) == {}
