"""A workdir keeps the configuration it was begun with, and takes no other."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ml_collections import ConfigDict

from configs import base, synthetic
from deskpro_jax.config import fields as fields_
from deskpro_jax.errors import InputError
from deskpro_jax.storage import files
from deskpro_jax.workdir import layout

FREE = {
    "data.data_dir": "elsewhere",
    "data.raw_dir": "elsewhere",
    "data.parts_dir": "elsewhere",
    "data.allow_different_size": True,
    "data.workers": 3,
    "eval.every": 7,
    "eval.batch": 8,
    "eval.report": "validation",
    "checkpoint.every": 5,
    "mesh.data": 2,
    "mesh.model": 2,
    "train.log_every": 1,
    "train.remat": "blocks",
    "train.depthwise": "grouped",
    "compilation_cache": "none",
}


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A workdir with a checkpoint."""
    layout.settle_config(tmp_path, base.get_config())
    (tmp_path / "teacher" / "checkpoints" / "5").mkdir(parents=True)
    return tmp_path


def changed(**fields: object) -> ConfigDict:
    config = base.get_config()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def stored(folder: Path) -> dict[str, object]:
    return fields_.flatten(json.loads((folder / layout.CONFIG_FILE).read_text()))


def test_flatten_names_every_field_and_survives_json() -> None:
    fields = fields_.flatten(synthetic.get_config())
    assert fields["data.body_size"] == [96, 48]
    assert fields["seed"] == 0
    assert not any(isinstance(value, dict) for value in fields.values())
    assert json.loads(json.dumps(fields)) == fields


def test_a_new_workdir_gets_the_configuration(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "first"
    layout.settle_config(folder, base.get_config())
    assert stored(folder) == fields_.flatten(base.get_config())


def test_a_process_that_does_not_write_makes_nothing(tmp_path: Path) -> None:
    layout.settle_config(tmp_path / "run", base.get_config(), write=False)
    assert not (tmp_path / "run").exists()


def test_the_same_configuration_is_accepted_again(begun: Path) -> None:
    layout.settle_config(begun, base.get_config())


def test_fields_that_decide_the_result_may_not_change(begun: Path) -> None:
    before = (begun / layout.CONFIG_FILE).read_bytes()
    with pytest.raises(InputError) as error:
        layout.settle_config(begun, changed(seed=4, train__epochs=3, data__body_size=(64, 32), data__workers=2))
    listed = str(error.value).splitlines()
    assert listed[1:-1] == [
        "  data.body_size: [384, 128] there, [64, 32] now",
        "  seed: 0 there, 4 now",
        "  train.epochs: 140 there, 3 now",
    ]
    assert (begun / layout.CONFIG_FILE).read_bytes() == before


@pytest.mark.parametrize("name", FREE)
def test_fields_that_decide_nothing_may_change(begun: Path, name: str) -> None:
    config = changed(**{name: FREE[name]})
    layout.settle_config(begun, config)
    assert stored(begun)[name] == FREE[name]


def test_fields_of_another_version_are_listed(begun: Path) -> None:
    fields = json.loads((begun / layout.CONFIG_FILE).read_text())
    fields["loss"]["forgotten"] = 1
    (begun / layout.CONFIG_FILE).write_text(json.dumps(fields))
    with pytest.raises(InputError, match=r"loss\.forgotten: 1 there, None now"):
        layout.settle_config(begun, base.get_config())


def test_a_broken_file_is_named(begun: Path) -> None:
    (begun / layout.CONFIG_FILE).write_text('{"seed": ')
    with pytest.raises(InputError, match=r"config\.json is damaged; expected a JSON object"):
        layout.settle_config(begun, base.get_config())


def test_without_a_checkpoint_a_wrong_value_can_be_corrected(tmp_path: Path) -> None:
    layout.settle_config(tmp_path, changed(data__name="synthetic_tny"))
    layout.settle_config(tmp_path, changed(data__name="synthetic_tiny"))
    assert stored(tmp_path)["data.name"] == "synthetic_tiny"


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    files.write_json(path, {"mAP": 0.5})
    with pytest.raises(TypeError):
        files.write_json(path, {"mAP": object()})
    assert json.loads(path.read_text()) == {"mAP": 0.5}


def test_evaluation_refuses_another_network_than_was_trained(tmp_path: Path) -> None:
    config = synthetic.get_config("debug")
    layout.settle_config(tmp_path, config)
    config.eval.batch = 7
    layout.check_network(tmp_path, config)
    config.data.body_size = (96, 48)
    with pytest.raises(InputError, match=r"data.body_size: \[64, 32\] there, \[96, 48\] now"):
        layout.check_network(tmp_path, config)
    layout.check_network(tmp_path / "converted", config)
