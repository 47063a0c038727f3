"""CSSC: embeddings, a training step before and after the triplet loss begins, one refinement, learning rates."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import golden_rule
from deskpro_jax.methods import cssc
from deskpro_jax.train import optimisers, schedules
from golden_cases import Golden, cast, steps, tensors, variables, worst

HEAVY = ("train", "before", "after")
_NAMES = cssc.NAMES[0]


def run(golden: Golden, case: str) -> None:
    """Compares one case."""
    kinds: dict[str, Any] = {"eval": _eval, "schedule": _schedule, "smr_unit": _refinement, "train": _outputs}
    if case in kinds:
        kinds[case](golden, golden.case(case))
    else:
        _step(golden, case)


def _config(golden: Golden) -> Any:
    meta = golden.meta
    fields = cssc.VARIANTS["cssc"] | {
        "model.parts": meta["parts"],
        "model.feature_dim": meta["part_dim"],
        "loss.margin": meta["margin"],
        "loss.label_smoothing": meta["label_smoothing"],
        "loss.triplet_start": meta["triplet_start_epoch"],
        "train.base_lr": meta["learning_rate"],
        "train.weight_decay": meta["weight_decay"],
        "train.milestones": tuple(meta["milestones"]),
        "train.warmup_factor": meta["warmup_factor"],
        "train.warmup_epochs": meta["warmup_epochs"],
        "train.epochs": meta["epochs"],
    }
    return steps.configured("cssc", fields)


def _eval(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta = golden.meta
    network, state = (
        steps.network_of(cssc, _config(golden), meta, jnp.float32),
        tensors(golden.manifest, meta["weights_seed"]),
    )
    images = jnp.asarray(golden_rule.images(meta["eval_seed"], meta["eval_image"]), jnp.float32)
    held = cast(variables(_NAMES, state, network, images[:1]), jnp.float32)
    apply = jax.jit(lambda x: network.apply(held, x, train=False)[0]["embeddings"][0])
    features, mirrored = (np.asarray(apply(x), np.float64) for x in (images, images[:, :, ::-1]))
    assert worst(features, expected["features"]) < 1e-4
    joined = features + mirrored
    assert worst(joined / np.linalg.norm(joined, axis=1, keepdims=True), expected["embeddings"]) < 1e-4


def _taken(golden: Golden, epoch: int, rate: float) -> tuple[Any, dict[str, Any]]:
    meta = golden.meta
    step = {**meta, "input": meta["train_image"], "input_seed": meta["train_seed"], "labels": meta["identities"]}
    with jax.enable_x64(True):
        config, state = _config(golden), tensors(golden.manifest, meta["weights_seed"])
        optimizer = optimisers.of_recipe(cssc.recipe(config), rate, config.train)
        read, written = steps.reader(_NAMES), steps.writer(_NAMES)
        return steps.step(cssc, config, read, golden, step, optimizer, written, state=state, epoch=epoch)


def _outputs(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    """The outputs of a training step are compared with those of the steps themselves."""
    assert {"before", "after"} & set(golden.cases)


def _step(golden: Golden, case: str) -> None:
    meta, expected, train = golden.meta, golden.case(case), golden.case("train")
    outputs, values = _taken(golden, meta[f"{case}_epoch"] - 1, meta[f"{case}_learning_rate"])
    stride = outputs["features"].shape[-1] // train["features"].shape[-1]
    assert worst(outputs["features"][..., ::stride], train["features"]) < 1e-5
    assert worst(outputs["logits"], train["logits"]) < 1e-5
    terms = values["terms"]
    np.testing.assert_allclose(terms["ce_body"], expected["identity"].sum(), rtol=1e-5)
    np.testing.assert_allclose(terms["total"], expected["total"], rtol=1e-5)
    if "triplet" in expected:
        np.testing.assert_allclose(terms["triplet_body"], expected["triplet"].sum(), rtol=1e-5)
    without = [name for name in values["gradients"] if name.endswith("bottleneck.bias")]
    steps.compare_step(values, {**expected, "no_gradient": without}, _NAMES.ignores, meta["weight_decay"])


def _schedule(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    rates = schedules.epoch_rates(_config(golden).train, 32, golden.meta["epochs"])
    np.testing.assert_allclose(rates, expected["learning_rates"], rtol=1e-6)


def _refinement(golden: Golden, expected: dict[str, np.ndarray]) -> None:
    meta = golden.meta["smr_unit"]
    for kind in {name.split("/")[0] for name in expected}:
        of_kind = {name.removeprefix(f"{kind}/"): array for name, array in expected.items() if name.startswith(kind)}
        shapes = golden.meta["smr_unit_manifest"][kind]
        # The refinement by itself, under the names that it has as the average or maximum of the first branch.
        prefix, stage = ("smr_c_branch1.", "content_1") if kind == "avg" else ("smr_s_branch1.", "salient_1")
        state = {
            f"{prefix}{name.partition('.')[2]}": array for name, array in tensors(shapes, meta["weights_seed"]).items()
        }
        module = _Alone(meta["num_classes"], kind, meta["part_num"], meta["part_dim"], meta["reduction"], stage)
        with jax.enable_x64(True):
            x = jnp.asarray(np.abs(golden_rule.images(meta["seed"], meta["shape"])))
            held = cast(variables(_NAMES, state, module, x), jnp.float64)

            def loss(x: Any, module: Any = module, held: Any = held) -> Any:
                outputs, moved = module.apply(held, x, train=True, mutable=["batch_stats"])
                return outputs[0].sum() + jnp.square(outputs[2]).sum(), (outputs, moved)

            gradient, ((refined, pooled, logits), moved) = jax.grad(loss, has_aux=True)(x)
            after, _, _ = module.apply({**held, **moved}, x, train=False)
        own = {"refined": refined, "pooled": pooled, "logits": logits, "grad": gradient, "refined_eval": after}
        for name, array in of_kind.items():
            value = np.asarray(own[name])
            value = value.transpose(0, 3, 1, 2) if value.ndim == 4 else value
            assert worst(value, array) < 1e-7, (kind, name)  # stored as float32


class _Alone(cssc.nn.Module):
    """One refinement, where it lies in the network."""

    num_classes: int
    kind: str
    parts: int
    part_dim: int
    reduction: int
    stage: str

    @cssc.nn.compact
    def __call__(self, x: Any, *, train: bool) -> Any:
        refinement = cssc.SemanticsRefinement(
            self.num_classes, self.kind, self.parts, self.part_dim, self.reduction, jnp.float64, name=self.stage
        )
        return refinement(x, train=train)
