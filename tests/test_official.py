"""The official presets make the released code's choices, and each field of docs/paper_and_code.md does what it says."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

import runs
from configs import base, variants
from deskpro_jax import experiment, losses
from deskpro_jax.config import fields as fields_
from deskpro_jax.data import opening
from deskpro_jax.data.load import augment, dataset, pipeline
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation import evaluate, protocols
from deskpro_jax.methods import deskpro
from deskpro_jax.models import initialisers, lmbn
from deskpro_jax.models.contract import Counts, Network, StepValues, StreamSpec
from deskpro_jax.models.lmbn import PARTS
from deskpro_jax.runtime import sharding
from deskpro_jax.train import schedules, teacher
from deskpro_jax.train import step as train
from deskpro_jax.workdir.networks import load_networks
from small_networks import drawn, small, spec
from torch_files import save, torch_zip

PRESETS = ("celeb", "celeb_light", "prcc")
PAGE = (runs.ROOT / "docs" / "paper_and_code.md").read_text(encoding="utf-8")


def load(name: str, variant: str = "official") -> ConfigDict:
    return importlib.import_module(f"configs.{name}").get_config(variant)


def pair(field: str, **fields: Any) -> tuple[ConfigDict, ConfigDict]:
    """Returns the debug configuration with the paper's and with the official value of one field alone."""
    both = []
    for value in (fields_.flatten(base.get_config())[field], variants.OFFICIAL[field]):
        c = base.get_config()
        c.update_from_flattened_dict(
            {**variants.DEBUG, **{n.replace("__", "."): v for n, v in fields.items()}, field: value}
        )
        both.append(c)
    return both[0], both[1]


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_differs_from_the_papers_configuration_by_the_released_choices_alone(name: str) -> None:
    paper, official = (fields_.flatten(load(name, variant)) for variant in ("", "official"))
    assert {field: official[field] for field in paper if paper[field] != official[field]} == variants.OFFICIAL


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_needs_the_released_teacher_and_composes(name: str) -> None:
    config = load(name)
    with pytest.raises(InputError, match=r"teacher\.checkpoint is empty and teacher\.train is False"):
        experiment.run(config, Path("never made"))
    assert not Path("never made").exists()
    config.teacher.checkpoint = "celeb_teacher.pth"
    teacher.check(config)
    short = load(name, "official,debug")
    assert (short.model.streams, short.model.backbone, short.train.epochs) == ("aacd", "x0_25", 2)
    lone = load(name, "official,csa_att")
    teacher.check(lone)  # a body stream has no teacher
    assert lone.model.attention == "released"


def test_the_page_names_every_field_with_both_values() -> None:
    values = fields_.flatten(base.get_config())
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    for field, official in variants.OFFICIAL.items():
        found = [row for row in rows if f"`{field}`" in row]
        assert found, field
        for value in (values[field], official):
            shown = json.dumps(value) if isinstance(value, str) else str(value)
            assert any(f"`{shown}`" in row for row in found), (field, shown)
    named = set(re.findall(r"`((?:data|augment|model|init|loss|teacher|train|eval)\.\w+)`", PAGE))
    assert named <= set(values), named - set(values)


# Row "CSA module".
def test_model_attention_chooses_one_convolution_with_bias_or_two_without() -> None:
    shapes = []
    for config in pair("model.attention", model__face="none"):
        params = initialisers.init_variables(deskpro.build(config, Counts(4)), 0)["params"]["body_stream"]
        shapes.append(jax.tree.map(np.shape, params["attention"]))
    assert shapes[0] == {"conv": {"kernel": (96, 1), "bias": (1,)}}
    assert shapes[1] == {"conv1": {"kernel": (96, 96)}, "conv2": {"kernel": (96, 1)}}


def loss_of(config: ConfigDict, name: str) -> Any:
    """Returns the function of a term of the student's loss."""
    return next(term.compute for term in deskpro.recipe(config).losses if term.name == name)


# Row "mask".
def test_loss_mask_rule_chooses_where_epsilon_comes_in() -> None:
    mask = jnp.array([[[0.0, 1.0, 0.0, 0.0]] * 2])  # [1, 2, 4]: one cell half clothing, one all clothing
    found = []
    for config in pair("loss.mask_rule"):
        inputs = {"cloth_mask": mask, "valid": jnp.array([True]), "has_mask": jnp.array([True])}
        inputs |= {"identity": jnp.array([0]), "has_face": jnp.array([True])}
        maps = {"body": {"attention": jnp.zeros((1, 1, 2))}}
        found.append(float(loss_of(config, "attention")(StepValues({}, maps, inputs, {}, 0))))
    assert found[0] == pytest.approx((0.55**2 + 0.1**2) / 2)  # epsilon, then resized
    assert found[1] == pytest.approx((0.5**2 + 0.1**2) / 2)  # resized, then exact zeros replaced


# Row "OSBlock".
def test_model_streams_chooses_four_streams_or_three_with_the_first_counted_twice() -> None:
    counts = []
    for config in pair("model.streams", model__face="none"):
        params = initialisers.init_variables(deskpro.build(config, Counts(4)), 0)["params"]["body_stream"]
        counts.append(len(params["trunk"]["block2_0"]["stage0"]["pointwise"]["kernel"]))
    assert counts == [4, 3]


# Row "frozen teacher".
def test_teacher_statistics_chooses_running_or_batch_statistics() -> None:
    class Teacher:
        def apply(self, variables: Any, inputs: Any, train: bool, mutable: Any = None, rngs: Any = None) -> Any:
            logits = {"face": {"logits": jnp.full((7, 1, 2), float(train))}}
            return ((logits, {}), {}) if mutable else (logits, {})

    inputs = {"restored_face": jnp.zeros((1, 2, 2, 3)), "valid": jnp.array([True]), "has_face": jnp.array([True])}
    modes = []
    for config in pair("teacher.statistics"):
        outputs = train.teacher_outputs(Teacher(), {}, inputs, config.teacher.statistics)  # type: ignore[arg-type]
        modes.append(float(outputs["face"]["logits"][0, 0, 0]))
    assert modes == [0.0, 1.0]  # evaluation mode; training mode, whose moved statistics are thrown away


# Row "teacher".
def test_teacher_train_chooses_to_train_one_or_to_ask_for_one() -> None:
    paper, official = pair("teacher.train")
    teacher.check(paper)
    with pytest.raises(InputError, match="name the released teacher"):
        teacher.check(official)


# Row "CE".
def test_loss_label_smoothing_moves_a_tenth_of_the_target_to_all_classes() -> None:
    logits = jnp.array([[[2.0, 0.0, -1.0]]] * 7)
    log_p = np.asarray(jax.nn.log_softmax(logits[0, 0]))
    found = []
    for config in pair("loss.label_smoothing"):
        outputs = {"body": {"features": jnp.zeros((7, 1, 2)), "logits": logits}}
        inputs = {"identity": jnp.array([0]), "valid": jnp.array([True]), "has_mask": jnp.array([False])}
        found.append(float(loss_of(config, "ce_body")(StepValues(outputs, {}, inputs, {}, 0))))
    assert found == pytest.approx([-7 * log_p[0], -7 * (0.9 * log_p[0] + 0.1 * log_p.mean())], rel=1e-6)


# Row "training length".
def test_train_schedule_epochs_ends_the_cosine_before_the_training() -> None:
    official = load("celeb").train
    rates = schedules.learning_rates(1.0, official.epochs, official.warmup_epochs, 0.001, official.schedule_epochs)
    paper = schedules.learning_rates(1.0, 140, official.warmup_epochs, 0.001)
    np.testing.assert_allclose(rates[:140], paper, rtol=1e-12)
    assert len(rates) == 1000
    # The cosine's period is 2 * 129 epochs: one epoch past its end it has risen again by that much.
    next_value = 0.001 + 0.999 * (1 - np.cos(np.pi / 129)) / 2
    assert rates[140] == pytest.approx(next_value)
    falling = 1 - np.arange(1, 860) / 500
    np.testing.assert_allclose(rates[141:], 0.001 + (next_value - 0.001) * falling, rtol=1e-9)
    assert rates[640] == pytest.approx(0.001)
    assert (rates > 0).all()


# Row "learning rate".
def test_train_base_lr_is_given_for_twenty_images() -> None:
    config = load("celeb")
    batch = config.data.identities * config.data.images_per_identity
    assert schedules.base_learning_rate(config.train.base_lr, batch) == pytest.approx(0.000735, abs=5e-7)


# Row "missing parts".
@pytest.mark.parametrize("field", ["data.require_face", "data.require_mask"])
def test_data_require_drops_training_images_and_identities_without(field: str, tiny_data: Path) -> None:
    lacking = "has_face" if field == "data.require_face" else "has_mask"
    held = dataset.load("synthetic_tiny", tiny_data, "train")
    images = []
    for config in pair(field, data__name="synthetic_tiny", data__data_dir=str(tiny_data)):
        images.append(opening.load_data(config, tiny_data).train)
    assert len(images[0]) == len(held)
    assert getattr(images[1], lacking).all()
    assert len(images[1]) == np.count_nonzero(
        getattr(held, lacking) & (held.has_restored_face | (lacking == "has_mask"))
    )
    assert len(images[1]) < len(held) or getattr(held, lacking).all()


# Row "no face at test".
def test_eval_missing_face_chooses_the_body_alone_or_zeros_for_the_face() -> None:
    unit = np.eye(4, dtype=np.float32)

    def image(face: np.ndarray | None, body: np.ndarray) -> np.ndarray:
        return np.concatenate([np.tile(np.zeros(4, np.float32) if face is None else face, 7), np.tile(body, 7)])

    query = np.stack([image(unit[0], unit[2])])
    # The right image has no face and the same body; the wrong one a face that is nearly right, and another body.
    near, far = (np.array(v, np.float32) for v in ([0.8, 0.6, 0, 0], [0, 0, 0.28, 0.96]))
    gallery = np.stack([image(None, unit[2]), image(near, far)])
    rest = ("clothes", "tracklet", "scale")
    splits = tuple(
        SimpleNamespace(identity=np.array(i), camera=np.array(c), **{name: np.full(len(i), -1) for name in rest})
        for i, c in (([1], [0]), ([1, 2], [1, 1]))
    )
    wanted = (protocols.Protocol("all", "", "none"),)
    streams = [StreamSpec(name, name, PARTS, (), 4) for name in ("face", "body")]
    first = []
    for config in pair("eval.missing_face"):
        rule = config.eval.missing_face
        similarity = evaluate.similarity_of(streams, rule)
        found = evaluate.score_embeddings(query, gallery, splits, similarity, wanted, 0)  # type: ignore[arg-type]
        first.append(next(r.result.figures["R-1"] for r in found if r.stream == "both"))
    assert first == [1.0, 0.0]
    with pytest.raises(InputError, match=r"eval\.missing_face is 'nan'; expected one of body, zeros"):
        evaluate.similarity_of(streams, "nan")


# Row "reported model": test_selection.py has the rest.
def test_eval_report_names_the_streams_checkpoints() -> None:
    assert [config.eval.report for config in pair("eval.report")] == ["last", "stitched"]


# Row "test-time flip".
def test_eval_flip_chooses_whether_the_mirrored_image_is_embedded_too() -> None:
    class Corner:
        """Its features are the red and blue of the upper left pixel."""

        def apply(self, variables: Any, inputs: Any, *, train: bool) -> Any:
            return {"body": {"embeddings": jnp.stack([inputs["body"][:, 0, 0, ::2]] * 7)}}, {}

    body = np.zeros((1, 2, 2, 3), np.uint8)
    body[0, 0, 0, 0], body[0, 0, 1, 2] = 255, 255
    batch = {"body": body, "has_face": np.array([False]), "valid": np.array([True])}
    found = []
    network = Network(Corner(), (StreamSpec("body", "body", PARTS, (), 2),))  # type: ignore[arg-type]
    for config in pair("eval.flip"):
        embed = evaluate.make_embed([network], config.eval.flip, sharding.make_mesh(config))
        found.append(np.asarray(embed([{}], batch))[0, :2])
    left, right = (np.asarray(augment.normalise(body))[0, 0, i, ::2] for i in (0, 1))
    np.testing.assert_allclose(found[0], (left + right) / np.linalg.norm(left + right), rtol=1e-5)
    np.testing.assert_allclose(found[1], left / np.linalg.norm(left), rtol=1e-5)


# Row "augmentation".
def test_augment_shared_draws_gives_all_images_of_a_batch_one_draw() -> None:
    batch = {
        name: np.broadcast_to(np.arange(24, dtype=np.uint8).reshape(24, 1) * 10, (6, 24, 24))
        for name in ("body", "face", "restored_face")
    }
    images = {name: np.repeat(value[..., None], 3, axis=-1) for name, value in batch.items()}
    patterns = []
    for config in pair("augment.shared_draws", augment__erase=1.0):
        fill = (np.array(config.augment.erase_fill) - augment.MEAN) / augment.STD
        rows = set()
        for step in range(4):
            draw = augment.draw_of_step(jnp.asarray(step), 10, config.augment.shared_draws)
            key = train.fold(jax.random.key(0), "augment", *draw)
            result = augment.augment_batch(key, dict(images), config.augment)
            erased = [np.isclose(result[name], fill, atol=1e-6).all(-1) for name in images]
            rows.add(len({pattern.tobytes() for photo in erased for pattern in photo}))
        patterns.append(rows)
    assert max(patterns[0]) > 6  # each photo of each image
    assert patterns[1] == {1}


def test_augment_shared_draws_come_round_within_an_epoch_and_change_with_it() -> None:
    draws = [tuple(map(int, augment.draw_of_step(jnp.asarray(step), 6, 4))) for step in range(8)]
    assert draws == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 0), (0, 1), (1, 0), (1, 1)]
    assert [len(augment.draw_of_step(jnp.asarray(step), 6, 0)) for step in range(2)] == [1, 1]


def test_augment_shared_draws_give_all_images_of_a_batch_one_crop(tiny_data: Path, monkeypatch: Any) -> None:
    split = dataset.load("synthetic_tiny", tiny_data, "train")
    seen: list[tuple[float, ...]] = []
    monkeypatch.setattr(pipeline.decoding.Decoder, "fill", lambda self, batch, row, split, index, box: seen.append(box))
    crops = []
    for config in pair("augment.shared_draws", augment__crop=1.0):
        seen.clear()
        loader = pipeline._TrainLoader(
            split, dataset.train_classes(split), dataset.clothes_classes(split),
            pipeline._decoder(split, config, ("body",)), 4, 2, 6, 1.0, 1.05,
            config.augment.shared_draws, (0, 1), False, (0, 8),
        )  # fmt: skip
        for step in (0, 1, 4, 6):
            loader(step)
        crops.append([len(set(seen[i : i + 8])) for i in range(0, 32, 8)])
        windows = [seen[i] for i in range(0, 32, 8)]
    assert crops == [[8] * 4, [1] * 4]
    assert windows[0] == windows[2]  # of the same epoch, four batches on
    assert len(set(windows)) == 3
    config.augment.shared_draws = -1
    with pytest.raises(InputError, match=r"augment\.shared_draws is -1"):
        pipeline.train_batches(split, config, seed=0, phase="student")


def test_augment_erasing_and_its_fill_are_fields() -> None:
    config = load("celeb").augment
    assert (config.erase, config.erase_area, config.erase_ratio) == (0.5, (0.02, 0.4), 0.3)
    assert (config.flip, config.crop, config.crop_scale) == (0.5, 0.5, 1.05)
    image = {"body": np.full((1, 16, 8, 3), 7, np.uint8)}
    changed = []
    for probability in (0.0, 1.0):
        config.erase = probability
        result = augment.augment_batch(jax.random.key(1), dict(image), config)["body"]
        changed.append(bool((np.abs(result - augment.normalise(image["body"])) > 1e-3).any()))
    assert changed == [False, True]


# Row "erasing".
def test_augment_erase_normalised_chooses_what_the_fill_is_measured_in() -> None:
    image = {"body": np.zeros((8, 16, 8, 3), np.uint8)}
    found = []
    for config in pair("augment.erase_normalised", augment__erase=1.0):
        result = np.asarray(augment.augment_batch(jax.random.key(1), dict(image), config.augment)["body"])
        found.append(result.reshape(-1, 3).max(0))
    np.testing.assert_allclose(found[0] * augment.STD + augment.MEAN, (0.4914, 0.4822, 0.4465), atol=1e-6)
    np.testing.assert_allclose(found[1], (0.4914, 0.4822, 0.4465), atol=1e-6)


# Row "margin".
def test_loss_margin_is_what_the_nearest_negative_has_to_be_farther_by() -> None:
    features, labels = jnp.array([[0.0], [0.5], [1.0], [1.5]]), jnp.array([0, 0, 1, 1])
    config = load("prcc").loss
    assert config.margin == 0.7
    rows = jnp.ones(4, bool)
    # Distances to positive and nearest negative: (0.5, 1), (0.5, 0.5), (0.5, 0.5), (0.5, 1).
    found = [float(losses.batch_hard_triplet(features, labels, rows, margin=m)) for m in (config.margin, 0.4)]
    assert found == pytest.approx([(0.2 + 0.7) / 2, 0.4 / 2], rel=1e-5)


# Row "multi-branch".
def test_model_fields_of_the_multi_branch_network_are_the_papers() -> None:
    config = load("celeb").model
    assert (config.feature_dim, config.drop_ratio) == (512, 0.33)
    assert (len(lmbn.PARTS), lmbn.TRIPLET_PARTS) == (7, (0, 1, 2))
    rows = jnp.ones((1, 12, 1, 1)) * jnp.arange(12.0)[None, :, None, None]
    kept = [int(np.count_nonzero(lmbn.drop_top(rows + 1, ratio))) for ratio in (config.drop_ratio, 0.5)]
    assert kept == [8, 6]


@pytest.mark.slow
def test_an_official_run_goes_from_a_released_file_to_results_of_its_best_checkpoint(
    tiny_data: Path, tmp_path: Path
) -> None:
    variant = "official,face_fkp,debug"
    classes = opening.load_data(runs.config(tiny_data, variant), tmp_path).classes
    held = small("aacd", identities=classes, dimension=32)
    released = str(save(tmp_path / "released.pth", torch_zip({"state_dict": dict(held)})))
    fields = {
        "model__backbone": "x0_25",
        "teacher__checkpoint": released,
        "init__face": released,
        "eval__every": 1,
        "train__base_lr": 0.0,
    }
    folder = tmp_path / "run"
    results = runs.run(runs.config(tiny_data, variant, **fields), folder)

    # At a rate of 0 the parameters are still those of the file.
    expected = drawn(spec("student", dimension=32, identities=classes), "aacd")["params"]
    found = load_networks(folder).phases[0].stream_variables("face")["params"]
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert not (folder / "teacher").exists()
    evaluations = [line for line in runs.lines(folder / "student") if "mAP" in line]
    assert len(evaluations) == 2
    best = max(evaluations, key=lambda line: (line["face_mAP"], line["step"]))["step"]
    record = json.loads((folder / "results.json").read_text())
    assert record["checkpoint"] == {"report": "stitched", "teacher": 0, "student": {"face": best}}
    assert {result.stream for result in results} == {"face"}
    terms = runs.losses(folder / "student")
    assert "kd" in terms[1]
    assert all(np.isfinite(list(values.values())).all() for values in terms.values())
    starts = json.loads((folder / "student" / "start.json").read_text())
    assert {role: start["source"] for role, start in starts.items()} == {"student": "released.pth"}
