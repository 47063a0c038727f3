"""Each loss is its equation, leaves masked rows out of value and gradient, and never produces a NaN."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from deskpro_jax import losses
from deskpro_jax.errors import InputError

PARTS, BATCH, CLASSES, DIM = 7, 6, 5, 4
LABELS = np.array([0, 0, 1, 1, 2, 2])
# NumPy arrays go where the package's annotations say Array.
EVERY: Any = np.ones(BATCH, bool)
SOME: Any = np.array([True, True, False, True, True, False])
NONE: Any = np.zeros(BATCH, bool)


def normal(seed: int, *shape: int) -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def attention_maps(seed: int = 1) -> Any:
    return np.random.default_rng(seed).uniform(0.05, 0.95, (BATCH, 3, 2)).astype(np.float32)


def not_clothing(seed: int = 2) -> Any:
    return (np.random.default_rng(seed).random((BATCH, 12, 8)) > 0.5).astype(np.float32)


def attention(maps: Any, valid: Any) -> Array:
    return losses.attention_loss(maps, jnp.asarray(not_clothing()), valid)


def smoothed_cross_entropy(logits: Any, valid: Any) -> Array:
    return losses.cross_entropy(logits, jnp.asarray(LABELS), valid, smoothing=0.1).sum()


def hinge_triplet(features: Any, valid: Any) -> Array:
    return losses.batch_hard_triplet(features, jnp.asarray(LABELS), valid, margin=0.7).sum()


def soft_triplet(features: Any, valid: Any) -> Array:
    return losses.batch_hard_triplet(features, jnp.asarray(LABELS), valid, soft=True).sum()


def cosine_triplet(features: Any, valid: Any) -> Array:
    return losses.batch_hard_triplet(features, jnp.asarray(LABELS), valid, margin=0.3, cosine=True).sum()


def similarity(features: Any, valid: Any) -> Array:
    return losses.multi_similarity(features, jnp.asarray(LABELS), valid, margin=0.7).sum()


def centre(features: Any, valid: Any) -> Array:
    return losses.centre_loss(features, normal(10, 3, CLASSES, DIM), jnp.asarray(LABELS), valid).sum()


def propagation(student: Any, valid: Any) -> Array:
    return losses.knowledge_propagation(jnp.asarray(normal(9, PARTS, BATCH, CLASSES)), student, valid, temperature=5.0)


def consistent(features: Any, valid: Any) -> Array:
    return losses.consistency(features, 0.5 * normal(13, 3, BATCH, DIM), valid).sum()


OUTFITS = np.array([0, 1, 2, 3, 4, 4])  # of LABELS: two of identity 0, two of 1, one of 2


def adversarial(cosine: Any, valid: Any) -> Array:
    first, end = np.array([0, 2, 4])[LABELS], np.array([2, 4, 5])[LABELS]
    number = np.arange(CLASSES)
    own = jnp.asarray((number >= first[:, None]) & (number < end[:, None]))
    return losses.clothes_adversarial(cosine, jnp.asarray(OUTFITS), own, valid, scale=4.0)


def divergence(scores: Any, valid: Any) -> Array:
    return losses.symmetric_divergence(scores, jnp.asarray(normal(11, BATCH, CLASSES)), valid)


# Each loss as a function of what is learned and of the mask, with an input and the axis of its rows.
LOSSES = [
    pytest.param(attention, attention_maps(), 0, id="attention"),
    pytest.param(smoothed_cross_entropy, normal(3, PARTS, BATCH, CLASSES), 1, id="cross_entropy"),
    pytest.param(hinge_triplet, normal(4, 3, BATCH, DIM), 1, id="triplet"),
    pytest.param(soft_triplet, normal(4, 3, BATCH, DIM), 1, id="soft_triplet"),
    pytest.param(cosine_triplet, normal(4, 3, BATCH, DIM), 1, id="cosine_triplet"),
    pytest.param(consistent, 0.5 * normal(4, 3, BATCH, DIM), 1, id="consistency"),
    pytest.param(adversarial, 0.3 * normal(12, BATCH, CLASSES), 0, id="adversarial"),
    pytest.param(divergence, normal(12, BATCH, CLASSES), 0, id="divergence"),
    pytest.param(similarity, normal(4, 3, BATCH, DIM), 1, id="multi_similarity"),
    pytest.param(centre, normal(4, 3, BATCH, DIM), 1, id="centre"),
    pytest.param(propagation, normal(5, PARTS, BATCH, CLASSES), 1, id="propagation"),
]
Loss = Callable[[Any, Any], Array]


@functools.cache
def compiled(loss: Loss) -> Callable[[Any, Any], tuple[Array, Array]]:
    """Returns the loss with its gradient, compiled once for all tests."""
    return jax.jit(jax.value_and_grad(loss))


@pytest.mark.parametrize(("loss", "x", "axis"), LOSSES)
def test_masked_rows_take_no_part_in_value_and_gradient(loss: Loss, x: np.ndarray, axis: int) -> None:
    value, grad = compiled(loss)(x, SOME)
    by_row = np.abs(np.swapaxes(grad, 0, axis)).reshape(BATCH, -1).max(1)
    assert (by_row[~SOME] == 0).all()
    assert by_row.max() > 0
    changed = np.swapaxes(x, 0, axis).copy()
    changed[~SOME] = changed[~SOME] * 0.1 + 0.3
    changed = np.swapaxes(changed, 0, axis)
    again, grad_again = compiled(loss)(changed, SOME)
    assert value == again
    assert value != compiled(loss)(x, EVERY)[0]
    np.testing.assert_array_equal(grad, grad_again)


@pytest.mark.parametrize(("loss", "x", "axis"), LOSSES)
def test_a_batch_without_a_valid_row_costs_nothing_and_teaches_nothing(loss: Loss, x: np.ndarray, axis: int) -> None:
    value, grad = compiled(loss)(x, NONE)
    assert value == 0
    assert (grad == 0).all()


@pytest.mark.parametrize(("loss", "x", "axis"), LOSSES)
def test_compiled_and_not_compiled_agree(loss: Loss, x: np.ndarray, axis: int) -> None:
    plain_value, plain_grad = jax.value_and_grad(loss)(x, SOME)
    value, grad = compiled(loss)(x, SOME)
    np.testing.assert_allclose(value, plain_value, rtol=2e-6)  # the compiler sums in another order
    np.testing.assert_allclose(grad, plain_grad, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(("loss", "x", "axis"), LOSSES)
def test_bfloat16_inputs_give_a_float32_loss(loss: Loss, x: np.ndarray, axis: int) -> None:
    low = jnp.asarray(x, jnp.bfloat16)
    value, grad = compiled(loss)(low, EVERY)
    assert value.dtype == jnp.float32
    assert grad.dtype == jnp.bfloat16
    # Only the input was rounded: the arithmetic is that of float32.
    np.testing.assert_allclose(value, compiled(loss)(low.astype(jnp.float32), EVERY)[0], rtol=1e-6)


@pytest.mark.parametrize("size", [1e4, 1e30])
@pytest.mark.parametrize("loss", [smoothed_cross_entropy, propagation])
def test_saturated_logits_have_a_finite_loss_and_gradient(loss: Loss, size: float) -> None:
    logits = size * np.sign(normal(6, PARTS, BATCH, CLASSES))
    value, grad = compiled(loss)(logits, EVERY)
    assert np.isfinite(value)
    assert value > 0
    assert np.isfinite(grad).all()


@pytest.mark.parametrize("size", [1e4, 1e30])
def test_a_saturated_teacher_has_a_finite_loss_and_gradient(size: float) -> None:
    teacher = size * np.sign(normal(6, PARTS, BATCH, CLASSES))
    function = jax.jit(jax.value_and_grad(losses.knowledge_propagation, 1), static_argnames="temperature")
    for student in (normal(7, PARTS, BATCH, CLASSES), -teacher):
        value, grad = function(teacher, student, EVERY, temperature=5.0)
        assert np.isfinite(value)
        assert value > 0
        assert np.isfinite(grad).all()


def resized_like_opencv(mask: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Bilinear between pixel centres, straight from the definition."""

    def neighbours(i: int, size: int, out: int) -> tuple[int, int, float]:
        position = min(max((i + 0.5) * size / out - 0.5, 0.0), size - 1.0)
        low = int(position)
        return low, min(low + 1, size - 1), position - low

    result = np.zeros((len(mask), rows, columns))
    for i in range(rows):
        top, bottom, down = neighbours(i, mask.shape[1], rows)
        for j in range(columns):
            left, right, across = neighbours(j, mask.shape[2], columns)
            upper = (1 - across) * mask[:, top, left] + across * mask[:, top, right]
            lower = (1 - across) * mask[:, bottom, left] + across * mask[:, bottom, right]
            result[:, i, j] = (1 - down) * upper + down * lower
    return result


@pytest.mark.parametrize("rule", losses.MASK_RULES)
@pytest.mark.parametrize("size", [(12, 8), (7, 5)])
def test_attention_loss_is_eq_4(rule: str, size: tuple[int, int]) -> None:
    maps, epsilon = attention_maps(), 0.2
    mask = not_clothing()[:, : size[0], : size[1]]
    if rule == "paper":
        target = resized_like_opencv(np.where(mask == 0, epsilon, mask), 3, 2)
    else:
        target = resized_like_opencv(mask, 3, 2)
        target[target == 0] = epsilon
    expected = np.mean([((maps[i] - target[i]) ** 2).mean() for i in range(BATCH) if SOME[i]])
    computed, grad = jax.value_and_grad(losses.attention_loss)(maps, mask, SOME, epsilon=epsilon, rule=rule)
    np.testing.assert_allclose(computed, expected, rtol=1e-5)
    slope = 2 * (maps - target) / (target[0].size * SOME.sum()) * SOME[:, None, None]
    np.testing.assert_allclose(grad, slope, rtol=1e-4, atol=1e-7)


def test_epsilon_before_and_after_the_resize_differ_where_cloth_and_not_cloth_mix() -> None:
    mask = np.array([[[0, 1, 0, 0], [1, 1, 0, 0], [1, 1, 0, 1], [1, 1, 0, 1]]], np.float32)
    before = losses.cloth_target(jnp.asarray(mask), (2, 2), 0.1, "paper")
    after = losses.cloth_target(jnp.asarray(mask), (2, 2), 0.1, "released")
    np.testing.assert_allclose(before, [[[0.775, 0.1], [1.0, 0.55]]], rtol=1e-6)
    np.testing.assert_allclose(after, [[[0.75, 0.1], [1.0, 0.5]]], rtol=1e-6)


def test_an_unknown_mask_rule_is_an_error_that_names_the_field_and_the_choices() -> None:
    with pytest.raises(InputError, match=r"loss\.mask_rule is 'offical'; expected one of paper, released"):
        losses.attention_loss(attention_maps(), not_clothing(), EVERY, rule="offical")


def test_masked_mean_keeps_leading_axes_and_is_zero_without_rows() -> None:
    values = jnp.asarray([[1.0, 2.0, 6.0], [0.0, 4.0, 8.0]])
    np.testing.assert_allclose(losses.masked_mean(values, jnp.asarray([True, False, True])), [3.5, 4.0])
    np.testing.assert_array_equal(losses.masked_mean(values, jnp.zeros(3, bool)), [0.0, 0.0])


def test_label_smoothing_spreads_its_share_over_all_classes() -> None:
    logits = jnp.asarray([[0.0, math.log(3.0)]])  # probabilities 1/4 and 3/4
    label, valid = jnp.asarray([1]), jnp.asarray([True])
    plain = losses.cross_entropy(logits, label, valid)
    smooth = losses.cross_entropy(logits, label, valid, smoothing=0.2)
    np.testing.assert_allclose(plain, -math.log(0.75), rtol=1e-6)
    np.testing.assert_allclose(smooth, -(0.9 * math.log(0.75) + 0.1 * math.log(0.25)), rtol=1e-6)


def test_cross_entropy_gives_one_mean_a_part_and_ignores_labels_of_masked_rows() -> None:
    logits = normal(3, PARTS, BATCH, CLASSES).astype(np.float64)
    labels = np.where(SOME, LABELS, -1)
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = [-np.mean([math.log(p[part, i, labels[i]]) for i in range(BATCH) if SOME[i]]) for part in range(PARTS)]
    computed = losses.cross_entropy(jnp.asarray(logits, jnp.float32), jnp.asarray(labels), SOME)
    np.testing.assert_allclose(computed, expected, rtol=1e-5)


def triplet_by_loops(features: np.ndarray, labels: np.ndarray, valid: np.ndarray, margin: float, soft: bool) -> float:
    computed = []
    rows = [i for i in range(len(labels)) if valid[i]]
    for anchor in rows:
        distances = {i: float(np.linalg.norm(features[anchor] - features[i])) for i in rows if i != anchor}
        positives = [d for i, d in distances.items() if labels[i] == labels[anchor]]
        negatives = [d for i, d in distances.items() if labels[i] != labels[anchor]]
        if positives and negatives:
            gap = max(positives) - min(negatives)
            computed.append(math.log1p(math.exp(gap)) if soft else max(0.0, gap + margin))
    return float(np.mean(computed)) if computed else 0.0


@pytest.mark.parametrize("soft", [False, True])
def test_triplet_mines_the_hardest_valid_pairs_of_every_anchor(soft: bool) -> None:
    triplet: Any = jax.jit(functools.partial(losses.batch_hard_triplet, margin=0.3, soft=soft))
    rng = np.random.default_rng(0)
    above_zero = 0
    for _ in range(20):
        labels, valid = rng.integers(0, 4, 10), rng.random(10) > 0.3
        features = rng.standard_normal((2, 10, 3)).astype(np.float32)
        features[:, :, 0] += 2.0 * labels
        expected = [triplet_by_loops(part, labels, valid, 0.3, soft) for part in features]
        computed = triplet(features, labels, valid)
        np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-5)
        above_zero += sum(value > 0 for value in expected)
    assert above_zero > 10


def test_anchors_without_a_positive_or_without_a_negative_are_ignored() -> None:
    # On a line: identity 0 at 0 and 3, identity 1 alone at 1. Only the two images of identity 0 are anchors.
    features, labels = jnp.asarray([[0.0], [3.0], [1.0]]), jnp.asarray([0, 0, 1])
    computed = losses.batch_hard_triplet(features, labels, jnp.ones(3, bool), margin=0.5)
    np.testing.assert_allclose(computed, ((3 - 1 + 0.5) + (3 - 2 + 0.5)) / 2, rtol=1e-5)
    one_identity = losses.batch_hard_triplet(features, jnp.zeros(3, int), jnp.ones(3, bool), margin=0.5)
    all_different = losses.batch_hard_triplet(features, jnp.arange(3), jnp.ones(3, bool), margin=0.5)
    assert one_identity == 0
    assert all_different == 0


@pytest.mark.parametrize(("soft", "expected"), [(False, 0.7), (True, math.log(2.0))])
def test_images_with_equal_features_have_a_finite_gradient(soft: bool, expected: float) -> None:
    function = lambda x: losses.batch_hard_triplet(x, jnp.asarray(LABELS), EVERY, margin=0.7, soft=soft)  # noqa: E731
    value_and_grad = jax.jit(jax.value_and_grad(function))
    value, grad = value_and_grad(jnp.ones((BATCH, DIM)))
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    assert (grad == 0).all()
    two_duplicates = normal(8, BATCH, DIM)
    two_duplicates[1] = two_duplicates[0]
    assert np.isfinite(value_and_grad(two_duplicates)[1]).all()


def test_distances_are_euclidean() -> None:
    features = normal(10, 2, BATCH, DIM)
    expected = np.linalg.norm(features[:, :, None] - features[:, None, :], axis=-1)
    np.testing.assert_allclose(losses.pairwise_distance(features), expected, rtol=1e-4, atol=2e-3)
    off_diagonal = ~np.eye(BATCH, dtype=bool)
    computed = np.asarray(losses.pairwise_distance(features))[:, off_diagonal]
    np.testing.assert_allclose(computed, expected[:, off_diagonal], rtol=1e-5)


def divergence_by_hand(teacher: np.ndarray, student: np.ndarray, tau: float) -> float:
    total = 0.0
    for part in range(len(teacher)):
        rows = []
        for i in range(BATCH):
            if SOME[i]:
                p = np.exp(teacher[part, i] / tau) / np.exp(teacher[part, i] / tau).sum()
                q = np.exp(student[part, i] / tau) / np.exp(student[part, i] / tau).sum()
                rows.append(float((p * np.log(p / q)).sum()))
        total += float(np.mean(rows))
    return tau**2 * total


@pytest.mark.parametrize("tau", [1.0, 5.0])
def test_propagation_is_eq_5_summed_over_outputs_and_averaged_over_valid_rows(tau: float) -> None:
    teacher, student = normal(11, PARTS, BATCH, CLASSES), normal(12, PARTS, BATCH, CLASSES)
    computed = losses.knowledge_propagation(teacher, student, SOME, temperature=tau)
    expected = divergence_by_hand(teacher.astype(np.float64), student.astype(np.float64), tau)
    np.testing.assert_allclose(computed, expected, rtol=1e-4)


def test_a_student_that_equals_its_teacher_costs_nothing() -> None:
    logits = normal(11, PARTS, BATCH, CLASSES)
    value, grad = jax.value_and_grad(losses.knowledge_propagation, 1)(logits, logits, EVERY, temperature=5.0)
    assert value == 0
    np.testing.assert_allclose(grad, 0, atol=1e-7)
    shifted = losses.knowledge_propagation(logits, logits + 3.0, EVERY, temperature=5.0)  # a constant changes nothing
    np.testing.assert_allclose(shifted, 0, atol=1e-5)


def test_no_gradient_flows_into_the_teacher() -> None:
    teacher, student = normal(11, PARTS, BATCH, CLASSES), normal(12, PARTS, BATCH, CLASSES)
    into_teacher, into_student = jax.grad(losses.knowledge_propagation, (0, 1))(
        teacher, student, EVERY, temperature=5.0
    )
    assert (into_teacher == 0).all()
    assert (jnp.abs(into_student).max((1, 2)) > 0).all()


def test_outfits_of_a_person_compete_with_those_of_others_only() -> None:
    cosine = 0.3 * normal(12, BATCH, CLASSES).astype(np.float64)
    expected = []
    for row, (worn, own) in enumerate(zip(OUTFITS, [{0, 1}, {0, 1}, {2, 3}, {2, 3}, {4}, {4}], strict=True)):
        others = sum(math.exp(4 * cosine[row, j]) for j in range(CLASSES) if j not in own)
        log_p = {j: 4 * cosine[row, j] - math.log(math.exp(4 * cosine[row, j]) + others) for j in own}
        target = {j: 0.1 / len(own) + (0.9 if j == worn else 0) for j in own}
        expected.append(-sum(target[j] * log_p[j] for j in own))
    np.testing.assert_allclose(adversarial(cosine.astype(np.float32), EVERY), np.mean(expected), rtol=1e-5)


def test_the_cosine_triplet_loss_does_not_see_lengths() -> None:
    features = normal(4, 3, BATCH, DIM)
    longer = features * np.random.default_rng(0).uniform(0.5, 2, (3, BATCH, 1)).astype(np.float32)
    np.testing.assert_allclose(cosine_triplet(longer, EVERY), cosine_triplet(features, EVERY), rtol=1e-5)
    unit = features / np.linalg.norm(features, axis=-1, keepdims=True)
    squared = jax.jit(losses.pairwise_distance)(unit) ** 2 / 2  # of unit vectors: 1 - cosine
    hardest = np.where(LABELS[:, None] == LABELS, squared, -np.inf).max(-1)
    nearest = np.where(LABELS[:, None] != LABELS, squared, np.inf).min(-1)
    expected = np.maximum(hardest - nearest + 0.3, 0).mean(-1).sum()
    np.testing.assert_allclose(cosine_triplet(features, EVERY), expected, rtol=1e-4)
