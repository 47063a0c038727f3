"""Other methods in place of DeSKPro's body network and face teacher."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

import runs
from configs import base
from deskpro_jax import Embedder, experiment, methods
from deskpro_jax.cli import convert, report
from deskpro_jax.errors import InputError
from deskpro_jax.methods import deskpro
from deskpro_jax.models.contract import Counts, StepValues

OSNET = ("model.backbone=x0_25", "model.feature_dim=24")


def configured(**fields: Any) -> Any:
    config = base.get_config()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def test_the_body_method_brings_its_network_its_stream_and_its_losses() -> None:
    config = configured(model__body_method="osnet", model__body_options=OSNET, model__backbone="x0_5")
    teacher, student = methods.phases(config)
    face, body = student.streams
    assert (body.parts, body.dim, face.dim) == (("global",), 24, 512)
    assert {term.name for term in student.recipe.losses} == {"triplet_face", "ce_face", "ce_body", "attention", "kd"}
    module = deskpro.build(config, Counts(7))
    assert (module.face_stream.backbone, module.body_stream.backbone) == ("x0_5", "x0_25")
    assert module.body_stream.attention == "paper"
    assert student.methods == {"body": "osnet"}
    assert teacher.streams[0].dim == 512


def test_the_face_teacher_may_be_any_method() -> None:
    config = configured(teacher__method="osnet_triplet", teacher__options=OSNET, model__face="teacher")
    (teacher, _) = methods.phases(config)
    assert (teacher.streams[0].name, teacher.streams[0].image) == ("face", "restored_face")
    assert {term.name for term in teacher.recipe.losses} == {"triplet_face", "ce_face"}
    module = deskpro.build_teacher(config, Counts(7))
    assert module.face_image == "restored_face"
    assert module.face_stream.backbone == "x0_25"


def test_each_part_of_the_student_learns_from_the_mean_of_a_teacher_with_other_outputs() -> None:
    rng = np.random.default_rng(0)
    student, teacher = (jnp.asarray(rng.standard_normal((parts, 4, 5)), jnp.float32) for parts in (7, 2))
    inputs = {"valid": jnp.ones(4, bool), "has_face": jnp.ones(4, bool)}

    def knowledge(logits: Any) -> float:
        values = StepValues({"face": {"logits": student}}, {}, inputs, {"face": {"logits": logits}}, 0)
        config = configured(teacher__method="osnet")
        term = next(term for term in deskpro.recipe(config).losses if term.name == "kd")
        return float(term.compute(values))

    mean = jnp.broadcast_to(teacher.mean(0), (7, 4, 5))
    assert knowledge(teacher) == pytest.approx(knowledge(mean), rel=1e-6)
    assert knowledge(teacher[:1]) == pytest.approx(knowledge(jnp.broadcast_to(teacher[:1], (7, 4, 5))), rel=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model__body_method": "osnett"}, r"model\.body_method is 'osnett'; did you mean osnet"),
        ({"teacher__method": "json"}, r"teacher\.method is 'json', whose module has no function 'network'"),
        ({"model__body_method": "deskpro"}, r"model\.body_method is 'deskpro', whose module has no function 'network'"),
        ({"model__body_method": "osnet", "model__body_options": ("parts=4",)}, "'parts=4'; did you mean model.parts"),
        (
            {"model__body_method": "osnet", "model__body_options": ("model.featur_dim=4",)},
            "have 'model.featur_dim=4'; did you mean model.feature_dim",
        ),
        (
            {"model__body_method": "osnet", "model__body_options": ("model.feature_dim=wide",)},
            "have 'model.feature_dim=wide', which is of another type",
        ),
        ({"model__body_method": "osnet", "model__body_options": ("model.backbone=x9",)}, "model.backbone is 'x9'"),
    ],
)
def test_a_method_that_cannot_be_a_stream_is_refused_in_one_line(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        experiment.validate(configured(**fields))
    assert "\n" not in str(caught.value)


def test_attention_is_refused_where_the_body_method_has_no_place_for_it() -> None:
    config = configured(model__body_method="hacnn", data__body_size=(160, 64))
    with pytest.raises(InputError, match=r"model\.body_method is 'hacnn', which has no place for attention"):
        experiment.validate(config)


def test_a_run_with_another_body_and_another_teacher_goes_from_training_to_embedding(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    narrow = "model.backbone=resnet14_x0_25"
    other_teacher = {"teacher__method": "bot", "teacher__options": (narrow,)}
    config = runs.config(tiny_data, "deskpro_pcb,debug", train__epochs=1, teacher__epochs=1, **other_teacher)
    assert config.model.body_options == (narrow,)
    results = experiment.run(config, tmp_path / "run")
    assert results
    terms = runs.losses(tmp_path / "run" / "student")
    assert {"ce_body", "ce_face", "triplet_face", "kd", "attention"} <= set(terms[1])
    assert np.isfinite([values["total"] for values in terms.values()]).all()
    embedder = Embedder(tmp_path / "run")
    assert embedder.streams == ("face", "body")
    assert embedder.dimension == 7 * 32 + 6 * 512
    assert report.main([str(tmp_path / "run"), "--quick"]) == 0
    capsys.readouterr()
    assert convert.main([str(tmp_path / "run"), "--to", str(tmp_path / "run.safetensors")]) == 2
    assert "a network of pcb beside DeSKPro's has no published names" in capsys.readouterr().err


def test_a_published_file_of_another_method_may_be_the_face_teacher(tiny_data: Path, tmp_path: Path) -> None:
    sizes = {"data__body_size": (32, 32), "model__feature_dim": 24, "train__epochs": 0}
    runs.run(runs.config(tiny_data, "osnet,debug", model__backbone="x0_25", **sizes), tmp_path / "osnet")
    path = tmp_path / "osnet.safetensors"
    assert convert.main([str(tmp_path / "osnet"), "--to", str(path)]) == 0
    config = runs.config(
        tiny_data,
        "face_fkp,debug",
        teacher__method="osnet",
        teacher__options=OSNET,
        teacher__checkpoint=str(path),
        train__epochs=1,
    )
    experiment.run(config, tmp_path / "run")
    terms = runs.losses(tmp_path / "run" / "student")
    assert all(np.isfinite(values["kd"]) for values in terms.values())
    config.teacher.options = ("model.backbone=x0_5",)
    with pytest.raises(InputError, match=r"teacher\.checkpoint: .*osnet"):
        experiment.run(config, tmp_path / "other")
