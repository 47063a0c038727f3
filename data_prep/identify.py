"""Describes which known network the tensors of a file belong to, by their names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from deskpro_jax.weights.looks_like import looks_like

UNKNOWN = "no network known here"
# Modules that hold the network itself: torch.nn.DataParallel, Lightning modules, torch.compile.
_WRAPPER = re.compile(r"(module|model|net|network|_orig_mod)\.")
_PARSER_SCHEMES = {20: "LIP", 18: "ATR", 7: "Pascal"}
# Two tensors that show each network trained for re-identification, under whatever prefix a stream has in its file.
_RE_IDENTIFICATION = (
    ("a LightMBN network", "backone.0.conv.weight", "backone.3.conv1.conv.weight"),
    ("a DeSKPro network", "backbone.0.conv.weight", "backbone.3.conv1.conv.weight"),
    ("an OSNet network", "conv1.conv.weight", "conv5.conv.weight"),
)


def unwrap(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns tensors without what wrappers (`module.`, `model.`, ...) put in front of every name.

    Args:
        tensors: by name, as read.

    Returns:
        The same values in the same order; names as they are where they do not all start alike.
    """
    plain = dict(tensors)
    while plain:
        start = _WRAPPER.match(next(iter(plain)))
        if start is None or not all(name.startswith(start[0]) for name in plain):
            break
        plain = {name.removeprefix(start[0]): value for name, value in plain.items()}
    return plain


def describe(tensors: Mapping[str, np.ndarray]) -> str:
    """Describes which network tensors look like; never raises, whatever their shapes are.

    Args:
        tensors: by name, as read from a file; names may carry wrappers.

    Returns:
        A phrase that follows "it holds": "a RetinaFace detector (mobilenet0.25)", "a GPEN restorer (256 px)", "an SCHP
        parser (20 classes, LIP)", "a DeSKPro network", "no network known here", ...
    """
    plain = unwrap(tensors)
    if "ClassHead.0.conv1x1.weight" in plain or "ssh1.conv3X3.0.weight" in plain:
        return f"a RetinaFace detector ({_detector_body(plain)})"
    if "fushion.3.weight" in plain or "context_encoding.bottleneck.0.weight" in plain:
        classes = _outputs(plain, "fushion.3.weight") or _outputs(plain, "decoder.conv4.weight")
        scheme = _PARSER_SCHEMES.get(classes or 0, "no scheme known here")
        return f"an SCHP parser ({classes or 'unknown'} classes, {scheme})"
    if "generator.to_rgb1.conv.weight" in plain or "generator.style.1.weight" in plain:
        levels = [int(match[1]) for name in plain if (match := re.fullmatch(r"ecd(\d)\.0\.\d\.weight", name))]
        return f"a GPEN restorer ({4 << max(levels)} px)" if levels else "a StyleGAN2 generator without GPEN's encoder"
    if network := _re_identification(tensors):
        return network
    if "stage1.0.0.weight" in plain and "stage3.1.3.weight" in plain:
        return "a MobileNetV1 classifier, of which RetinaFace uses the body"
    if "conv1.weight" in plain and "layer4.0.conv1.weight" in plain:
        return "a ResNet classifier or body"
    return looks_like(tensors) or UNKNOWN


def _re_identification(tensors: Mapping[str, np.ndarray]) -> str | None:
    for words, first, other in _RE_IDENTIFICATION:
        starts = (name.removesuffix(first) for name in tensors if name.endswith(first))
        if any(start + other in tensors for start in starts):
            return words
    return None


def _detector_body(plain: Mapping[str, np.ndarray]) -> str:
    if _outputs(plain, "body.stage1.0.0.weight") == 8:
        return "mobilenet0.25"
    blocks = {match[1] for name in plain if (match := re.match(r"body\.(layer\d\.\d+)\.", name))}
    expected = {f"layer{i}.{j}" for i, count in enumerate((3, 4, 6, 3), 1) for j in range(count)}
    return "resnet50" if blocks == expected else "a body not known here"


def _outputs(plain: Mapping[str, np.ndarray], name: str) -> int | None:
    """Returns the first size of a tensor, None where it is absent or has none."""
    shape = np.shape(plain[name]) if name in plain else ()
    return int(shape[0]) if shape else None
