"""What a run was trained and tested by, in the words of a table: in which methods' recipes differ."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from deskpro_jax import methods
from deskpro_jax.config.fields import flatten
from deskpro_jax.models.contract import PhaseSpec

_TERMS = {"ce": "cross-entropy", "kd": "distillation", "multi_similarity": "multi-similarity"}


def describe_recipe(configuration: ml_collections.ConfigDict, steps: Mapping[str, int]) -> dict[str, str]:
    """Returns the recipe of a run, by what it is about.

    Args:
        configuration: of the run.
        steps: training steps of each phase.
    """
    config = flatten(configuration)
    batch = config["data.identities"] * config["data.images_per_identity"]
    return {
        "network": _network(config),
        "photo": _size(config["data.body_size"])
        + ("" if config["model.face"] == "none" else f", face {_size(config['data.face_size'])}"),
        "batch": f"{config['data.identities']} people x {config['data.images_per_identity']}"
        if config["data.sampler"] == "identities"
        else f"{batch} images",
        "images seen": _seen(steps, batch),
        "augmentation": _augmentation(config),
        "losses": _losses(methods.phases(configuration), config["loss.label_smoothing"]),
        "optimiser": _optimiser(config),
        "test": _test(config),
        "starts from": ", ".join(
            str(config[name]).rpartition("/")[2]
            for name in sorted(config)
            if name.startswith("init.") and name != "init.dont_load" and config[name]
        )
        or "random weights",
    }


def differing(recipes: Sequence[Mapping[str, str]]) -> tuple[list[str], dict[str, str]]:
    """Returns in what some recipes differ, and what is the same in all of them."""
    names = list(recipes[0]) if recipes else []
    differ = [name for name in names if len({recipe[name] for recipe in recipes}) > 1]
    return differ, {name: recipes[0][name] for name in names if name not in differ}


def _size(size: Sequence[int]) -> str:
    return f"{size[0]}x{size[1]}"


def _network(config: Mapping[str, Any]) -> str:
    body = config["model.body_method"]
    return str(config["model.backbone"]) + (f", body {body}" if body else "")


def _seen(steps: Mapping[str, int], batch: int) -> str:
    phases = {name: count * batch for name, count in steps.items()}
    if len(phases) == 1:
        return f"{next(iter(phases.values())):,}"
    return ", ".join(f"{name} {images:,}" for name, images in phases.items()) or "-"


def _augmentation(config: Mapping[str, Any]) -> str:
    names = {
        "flip": f"flip {config['augment.flip']:g}",
        "crop": f"enlarge to {config['augment.crop_scale']:g} and crop {config['augment.crop']:g}",
        "pad": f"pad {config['augment.pad']} and crop",
        "brightness": f"brightness {config['augment.brightness']:g}",
        "contrast": f"contrast {config['augment.contrast']:g}",
        "saturation": f"saturation {config.get('augment.saturation', 0):g}",
        "hue": f"hue {config.get('augment.hue', 0):g}",
        "erase": f"erase {config['augment.erase']:g}",
    }
    return ", ".join(text for name, text in names.items() if config.get(f"augment.{name}")) or "none"


def _losses(phases: Sequence[PhaseSpec], smoothing: float) -> str:
    """Returns the terms of each phase's loss with their weights; those of streams that are alike once."""
    texts = []
    for phase in phases:
        streams = "|".join(stream.name for stream in phase.streams)
        terms = []
        for term in phase.recipe.losses:
            name = re.sub(rf"_({streams})$", "", term.name)
            weight = "by epoch" if callable(term.weight) else f"x {float(term.weight):g}"
            terms.append(f"{_TERMS.get(name, name.replace('_', ' '))} {weight}")
        text = ", ".join(dict.fromkeys(terms))
        texts.append(f"{phase.name}: {text}" if len(phases) > 1 else text)
    return "; ".join(texts) + (f"; label smoothing {smoothing:g}" if smoothing else "")


def _optimiser(config: Mapping[str, Any]) -> str:
    batch = config["data.identities"] * config["data.images_per_identity"]
    reference = config["train.reference_batch"]
    rate = config["train.base_lr"] * ((batch / reference) ** 0.5 if reference else 1.0)
    schedule = str(config["train.schedule"]).replace("_", " ")
    if schedule == "step":
        milestones = ", ".join(str(epoch) for epoch in config["train.milestones"]) or "never"
        schedule = f"x {config['train.decay']:g} at {milestones}"
    backbone = config["train.pretrained_rate"]
    return ", ".join(
        text
        for text in (
            f"{config['train.optimizer']} {rate:.2g}",
            f"backbone x {backbone:g}" if backbone != 1 else "",
            f"warm-up {config['train.warmup_epochs']}" if config["train.warmup_epochs"] else "",
            f"frozen {config['train.freeze_epochs']}" if config["train.freeze_epochs"] else "",
            schedule,
            f"{config['train.epochs']} epochs",
            f"decay {config['train.weight_decay']:g}",
        )
        if text
    )


def _test(config: Mapping[str, Any]) -> str:
    return f"{config['eval.distance']}, {'mirrored image added' if config['eval.flip'] else 'no mirrored image'}"
