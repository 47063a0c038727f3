"""DeSKPro holds the streams its configuration asks for, and needs nothing but images at inference."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from deskpro_jax import methods
from deskpro_jax.errors import InputError
from deskpro_jax.methods import deskpro
from deskpro_jax.models import initialisers
from deskpro_jax.models.contract import Counts, LossTerm, StepValues
from deskpro_jax.train import optimisers, step

BATCH = 3
BODY, FACE = (jax.ShapeDtypeStruct((BATCH, *size, 3), jnp.float32) for size in ((64, 32), (32, 32)))
BOTH = deskpro.module(5, backbone="x0_25", feature_dim=16)


def narrow(**fields: Any) -> Any:
    config = base.get_config()
    config.model.update({"backbone": "x0_25", "feature_dim": 16, **fields})
    return config


@pytest.fixture(scope="module")
def variables() -> Any:
    return initialisers.init_variables(BOTH, 0)


def test_inference_takes_images_and_no_mask_teacher_or_restored_face() -> None:
    assert deskpro.recipe(narrow()).teacher == "teacher"  # in training only
    assert [spec.image for spec in deskpro.streams(narrow())] == ["face", "body"]


def test_images_of_different_sizes_give_embeddings_of_both_streams(variables: Any) -> None:
    outputs, middle = jax.eval_shape(lambda v, b, f: BOTH.apply(v, {"body": b, "face": f}), variables, BODY, FACE)
    assert set(outputs) == {"face", "body"}
    for stream in ("face", "body"):
        assert outputs[stream]["embeddings"].shape == (7, BATCH, 16)
        assert outputs[stream]["logits"].shape == (7, BATCH, 5)
    assert middle["body"]["attention"].shape == (BATCH, 8, 4)
    assert "attention" not in middle["face"]


@pytest.mark.parametrize(("stream", "other"), [("face", "body"), ("body", "face")])
def test_one_stream_alone_works_on_its_own_images(variables: Any, stream: str, other: str) -> None:
    model = BOTH.clone(**{f"{other}_stream": None})
    kept = {name: {f"{stream}_stream": tree[f"{stream}_stream"]} for name, tree in variables.items()}
    assert jax.tree.map(jnp.shape, initialisers.init_variables(model, 0)) == jax.tree.map(jnp.shape, kept)
    image = {"face": FACE, "body": BODY}[stream]
    run: Any = model.apply
    outputs, _ = jax.eval_shape(lambda v, x: run(v, {stream: x}), kept, image)
    assert set(outputs) == {stream}
    assert outputs[stream]["embeddings"].shape == (7, BATCH, 16)
    with pytest.raises(InputError, match=f"{stream} stream, and the batch has no field '{stream}'"):
        run(kept, {other: np.zeros(image.shape)}, train=True, mutable=["batch_stats"])
    with pytest.raises(InputError, match=f"the batch has {other}; expected the image of a stream"):
        run(kept, {other: np.zeros(image.shape)})


def test_missing_faces_stay_out_of_the_face_streams_statistics_and_padding_out_of_the_bodys(variables: Any) -> None:
    def first_means(v: Any, body: Any, face: Any, has_face: Any, valid: Any) -> dict[str, Any]:
        inputs = {"body": body, "face": face, "has_face": has_face, "valid": valid}
        _, moved = BOTH.apply(v, inputs, train=True, mutable=["batch_stats"])
        stats = moved["batch_stats"]  # all that the later layers compute is dropped by the compiler
        return {stream: stats[f"{stream}_stream"]["trunk"]["stem_norm"]["mean"] for stream in ("face", "body")}

    means = jax.jit(first_means)
    rng = np.random.default_rng(0)
    body, face = (rng.standard_normal(spec.shape).astype(np.float32) for spec in (BODY, FACE))
    everything, nothing, some = np.ones(BATCH, bool), np.zeros(BATCH, bool), np.array([True, True, False])
    no_face = means(variables, body, face, nothing, everything)
    assert (no_face["face"] == 0).all()
    assert (no_face["body"] != 0).all()
    padding = means(variables, body, face, everything, nothing)
    assert (padding["body"] == 0).all()
    assert (padding["face"] == 0).all()  # a row of padding has no face either
    changed_face, changed_body = face.copy(), body.copy()
    changed_face[2], changed_body[2] = 9.0, 9.0
    one, other = (means(variables, b, f, some, some) for b, f in ((body, face), (changed_body, changed_face)))
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.parametrize(
    ("fields", "streams"),
    [
        ({}, (True, True)),
        ({"body": False}, (False, True)),
        ({"face": "none"}, (True, False)),
        ({"face": "teacher"}, (True, False)),  # the teacher has a phase of its own
    ],
)
def test_the_student_phase_trains_the_streams_of_the_configuration(
    fields: dict[str, Any], streams: tuple[bool, bool]
) -> None:
    model = deskpro.build(narrow(**fields), Counts(5))
    assert (model.body_stream is not None, model.face_stream is not None) == streams


def test_the_teacher_is_one_face_stream_of_the_same_width() -> None:
    module = deskpro.build_teacher(narrow(dtype="bfloat16"), Counts(9))
    assert (module.body_stream, module.face_image) == (None, "restored_face")
    teacher: Any = module.face_stream
    assert (teacher.backbone, teacher.feature_dim, teacher.num_classes) == ("x0_25", 16, 9)
    assert teacher.dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("field", "value", "choice"),
    [
        ("backbone", "x1", "x1_0"),
        ("streams", "abc", "abcd"),
        ("attention", "papr", "paper"),
        ("face", "studnet", "student"),
        ("dtype", "float16", "bfloat16"),
    ],
)
def test_a_wrong_field_is_an_error_that_names_it_and_the_choices(field: str, value: str, choice: str) -> None:
    with pytest.raises(InputError, match=rf"model\.{field} is '{value}'; .*{choice}"):
        methods.check(narrow(**{field: value}))


def test_a_model_without_any_stream_is_an_error() -> None:
    with pytest.raises(InputError, match=r"model\.body is False and model\.face is 'none'"):
        deskpro.check(narrow(body=False, face="none"))


def test_fresh_parameters_have_the_stated_distributions(variables: Any) -> None:
    for stream in ("face", "body"):
        params = variables["params"][f"{stream}_stream"]
        assert (params["neck"]["bias"] == 0).all()
        assert (params["neck"]["scale"] == 1).all()
        for value, deviation in (
            (params["classifier"]["kernel"], 0.001),
            (params["trunk"]["stem"]["kernel"], math.sqrt(2 / (49 * 16))),
            (params["trunk"]["block2_0"]["conv3"]["conv"]["kernel"], math.sqrt(2 / 64)),
            (params["branches"]["block4_0"]["stage0"]["depthwise"]["kernel"], math.sqrt(2 / (9 * 32))),
        ):
            assert value.std() == pytest.approx(deviation, rel=0.1)
    bound = 1 / math.sqrt(96)
    csa = variables["params"]["body_stream"]["attention"]["conv"]["kernel"]
    assert 0.9 * bound < np.abs(csa).max() <= bound


def test_fresh_parameters_are_float32_follow_from_the_seed_and_differ_between_streams(variables: Any) -> None:
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype(np.float32)}
    jax.tree.map(np.testing.assert_array_equal, variables, initialisers.init_variables(BOTH, 0))
    face, body = (variables["params"][f"{stream}_stream"]["trunk"]["stem"]["kernel"] for stream in ("face", "body"))
    assert (face != body).all()


def test_the_optimiser_freezes_the_bias_of_every_neck_and_nothing_else(variables: Any) -> None:
    frozen = jax.tree_util.tree_flatten_with_path(optimisers.frozen(variables["params"]))[0]
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, still in frozen if still]
    assert names == ["body_stream/neck/bias", "face_stream/neck/bias"]


def test_the_total_weighs_the_terms_as_eq_7() -> None:
    config = narrow()
    weights = {term.name: term.weight for term in deskpro.recipe(config).losses}
    assert weights == {
        "triplet_face": 1.0,
        "ce_face": pytest.approx(0.3),
        "triplet_body": 1.0,
        "ce_body": 1.0,
        "attention": 7.0,
        "kd": 0.7,
    }
    values = dict(zip(weights, (3.0, 7.0, 5.0, 11.0, 2.0, 13.0), strict=True))
    terms = [LossTerm(name, lambda _, name=name: jnp.asarray(values[name]), weights[name]) for name in weights]  # type: ignore[misc]
    total, _ = step.loss_terms(StepValues({}, {}, {}, {}, 0), terms)
    np.testing.assert_allclose(total, 7 * 2 + 3 + 5 + 0.3 * 7 + 11 + 0.7 * 13, rtol=1e-6)


def test_without_a_teacher_the_students_cross_entropy_keeps_its_whole_weight() -> None:
    config = narrow(body=False)
    config.loss.alpha = 0.0
    assert {term.name: term.weight for term in deskpro.recipe(config).losses} == {"triplet_face": 1.0, "ce_face": 1.0}
    assert [spec.name for spec in deskpro.phases(config)] == ["student"]
