"""A teacher that was trained elsewhere is read from a workdir or a released file, or refused with what it is."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
from ml_collections import ConfigDict

from configs import base
from deskpro_jax.cli.convert import main
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.methods import deskpro
from deskpro_jax.runtime import sharding
from deskpro_jax.train import teacher
from golden_rule import state_dict
from small_networks import DIMENSION, IDENTITIES, drawn, only, save_workdir, small, spec
from torch_files import save, torch_legacy, torch_zip

SPLIT: Any = SimpleNamespace(
    image_id=["2_c1_0", "9_c1_0", "10_c1_0"], identity=np.array([2, 9, 10]), clothes=np.full(3, -1)
)
AS_TEXT = [1, 2, 0]  # 10 comes first


def configuration(path: Path | str, **fields: Any) -> ConfigDict:
    c = base.get_config()
    given = {name.replace("__", "."): value for name, value in fields.items()}
    own = {"model.backbone": "x0_25", "model.feature_dim": DIMENSION, "model.streams": "aacd"}
    c.update_from_flattened_dict({**own, "teacher.checkpoint": str(path), **given})
    return c


def read(c: ConfigDict, identities: int = IDENTITIES) -> Any:
    return teacher.read_given(c, deskpro.phases(c)[0], split(identities), sharding.make_mesh(c))


def split(identities: int) -> Any:
    """Returns a training split of so many identities."""
    if identities == IDENTITIES:
        return SPLIT
    ids = np.arange(identities)
    return SimpleNamespace(image_id=[str(i) for i in ids], identity=ids, clothes=np.full(identities, -1))


def assert_is(found: Any, expected: dict[str, Any], order: list[int] | None = None) -> None:
    """Asserts that the variables are those expected, classifiers with their outputs in `order`."""
    found = {collection: tree["face_stream"] for collection, tree in jax.device_get(found).items()}
    kernel = expected["params"]["classifier"]["kernel"]
    kernel = kernel if order is None else kernel[..., order]
    expected = {**expected, "params": {**expected["params"], "classifier": {"kernel": kernel}}}
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_a_released_file_is_a_teacher_whose_classes_are_put_into_order(tmp_path: Path) -> None:
    held = {f"module.{name}": value for name, value in only("teacher", small("aacd")).items()}
    path = save(tmp_path / "celeb_teacher.pth", torch_zip({"state_dict": held, "epoch": 3}))
    variables, step = read(configuration(path))
    assert step == 0
    assert_is(variables, drawn(spec("teacher"), "aacd"), AS_TEXT)


def test_a_lone_network_without_prefix_and_a_safetensors_file_are_teachers_too(tmp_path: Path) -> None:
    lone = only("teacher", small("aacd"), prefix=False)
    assert_is(
        read(configuration(save(tmp_path / "a.pth", torch_legacy(lone))))[0], drawn(spec("teacher"), "aacd"), AS_TEXT
    )
    ours = tmp_path / "a.safetensors"
    ours.write_bytes(safetensors.numpy.save(only("teacher", small("aacd")), {"class_order": "number"}))
    assert_is(read(configuration(ours))[0], drawn(spec("teacher"), "aacd"))


def test_a_workdir_its_teacher_folder_and_a_converted_file_are_teachers(tmp_path: Path) -> None:
    trained = tmp_path / "trained"
    expected = save_workdir(trained, {"teacher": spec("teacher")}, "aacd", step=9)["teacher"]
    for place in (trained, trained / "teacher", trained / "teacher" / "checkpoints"):
        variables, step = read(configuration(place))
        assert step == 9
        assert_is(variables, expected)
    path = save(tmp_path / "a.pth", torch_zip(only("teacher", small("aacd"))))
    assert main([str(path), "--to", str(tmp_path / "converted")]) == 0
    assert_is(read(configuration(tmp_path / "converted"))[0], drawn(spec("teacher"), "aacd"), AS_TEXT)


def test_a_run_that_needs_a_teacher_and_may_not_train_one_has_to_name_it() -> None:
    c = configuration("", teacher__train=False)
    with pytest.raises(
        InputError, match=r"teacher\.checkpoint is empty and teacher\.train is False: name the released"
    ):
        teacher.check(c)
    teacher.check(configuration("teacher.pth", teacher__train=False))
    teacher.check(configuration("", teacher__train=True))
    teacher.check(configuration("", teacher__train=False, model__face="none"))
    teacher.check(configuration("", teacher__train=False, loss__alpha=0.0))


@pytest.mark.parametrize(
    ("held", "fields", "identities", "words"),
    [
        ("teacher", {}, 5, "know 3 identities, the training split has 5"),
        ("teacher", {"model__backbone": "x0_5"}, 3, "model.backbone x0_25, the configuration x0_5"),
        ("teacher", {"model__feature_dim": 16}, 3, "model.feature_dim 8, the configuration 16"),
        ("teacher", {"model__streams": "abcd"}, 3, "weights are of aacd .* the model runs abcd"),
        ("student", {}, 3, "holds student, no teacher"),
        ("body", {}, 3, "holds body, no teacher"),
    ],
)
def test_a_file_that_is_no_teacher_of_this_run_is_refused(
    held: str, fields: dict[str, Any], identities: int, words: str, tmp_path: Path
) -> None:
    path = save(tmp_path / "a.pth", torch_zip(only(held, small("aacd"))))
    with pytest.raises(InputError, match=rf"teacher\.checkpoint: .*a\.pth: .*{words}"):
        read(configuration(path, **fields), identities)


def test_other_files_are_refused_by_what_they_are(tmp_path: Path) -> None:
    shapes = {"conv1.conv.weight": [16, 3, 7, 7], "conv5.conv.weight": [128, 128, 1, 1]}
    osnet = save(tmp_path / "osnet.pth", torch_zip(state_dict(shapes, 0)))
    with pytest.raises(InputError, match=r"osnet\.pth: it holds an OSNet, which knows nobody"):
        read(configuration(osnet))
    body = save(tmp_path / "body.pth", torch_zip(only("body", small("aacd"), prefix=False)))
    with pytest.raises(InputError, match=r"body\.pth: it is a body network"):
        read(configuration(body))
    half = tmp_path / "half.pth"
    half.write_bytes(osnet.read_bytes()[:3000])
    with pytest.raises(InputError, match=r"teacher\.checkpoint: .*half\.pth is a damaged or cut-short"):
        read(configuration(half))
    with pytest.raises(MissingInputError, match=r"teacher\.checkpoint is .*nowhere; expected a workdir"):
        read(configuration(tmp_path / "nowhere"))
