"""The model card that goes with exported weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class CardNetwork(NamedTuple):
    """What a model card says of one network.

    Attributes:
        prefix: what its names start with.
        kind: backbone or method.
        attention: form of its CSA module.
        feature_dim: size of each part of its embedding; 0 where it has none.
        identities: size of its classifiers; None where there are none.
        step: of the training.
    """

    prefix: str
    kind: str
    attention: str
    feature_dim: int
    identities: int | None
    step: int


class Card(NamedTuple):
    """What a model card says.

    Attributes:
        networks: by role.
        os_streams: OSBlock streams that run; "" where there are no OSBlocks.
        config: the configuration of the training; None for converted weights.
        conversion: what is recorded of converted weights, None for others.
        results: of the evaluation, None where there was none.
        starts: pretrained initialisation by phase, then role.
        versions: of the packages that wrote the file.
        compact: whether the file has only what an embedding depends on.
    """

    networks: Mapping[str, CardNetwork]
    os_streams: str
    config: Mapping[str, Any] | None
    conversion: Mapping[str, Any] | None
    results: Mapping[str, Any] | None
    starts: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]
    compact: bool = False


def model_card(path: Path, card: Card, size: int, sha256: str) -> str:
    """Returns the model card of an exported file, as Markdown.

    Args:
        path: the exported file.
        card: what it says.
        size: of the file, in bytes.
        sha256: its checksum.
    """
    config, results = card.config or {}, card.results or {}
    lines = [
        f"# {path.stem}",
        "",
        "Weights for cloth-changing person re-identification, in the PyTorch names of the reference implementation.",
        f"`{path.name}`: {size} bytes, SHA-256 `{sha256}`.",
        "",
        "| network | names start with | method or backbone | attention | features | identities | step |",
        "|---|---|---|---|---|---|---|",
    ]
    for role, network in card.networks.items():
        names = f"`{network.prefix}`" if network.prefix else "-"
        lines.append(
            f"| {role} | {names} | {network.kind} | {network.attention} | {network.feature_dim or '-'}"
            f" | {network.identities or '-'} | {network.step} |"
        )
    if card.os_streams:
        lines += ["", f"OSBlock streams: `{card.os_streams}`."]
    if card.os_streams == "aacd":
        lines.append("Stream a runs twice and b never; what is under `conv2b` is there only for strict loading.")
    if card.compact:
        lines += ["", "Compact: no classifiers, no counters, each tensor once, kernels in float16."]
    lines += ["", "## Data", ""]
    data = config.get("data", {})
    if data:
        lines.append(f"Trained on `{data.get('name')}`, seed {config.get('seed')}.")
        if str(data.get("name")).startswith("synthetic_"):
            lines.append(f"Its people are drawn: data.build_seed {data.get('build_seed')}.")
        if results.get("checksums") and results.get("dataset") == data.get("name"):
            sums = ", ".join(f"{split} `{digest}`" for split, digest in results["checksums"].items())
            lines.append(f"Checksums of its splits: {sums}.")
    elif card.conversion is not None:
        source, digest = card.conversion["source"], card.conversion["sha256"]
        lines.append(f"Converted from `{source}` (SHA-256 `{digest}`); see its own documentation.")
    else:
        lines.append("Not recorded in the workdir.")
    for start in card.starts.values():
        lines += [f"The {role} network began with `{s['source']}` ({_digest(s)})." for role, s in start.items()]
    lines += ["", "## Scores", ""]
    rows = results.get("results") or []
    if rows:
        ranks = ("mAP", "R-1", "R-5", "R-10")
        rule = rows[0].get("average_precision", "step")
        precision = "mAP" if rule == "step" else f"mAP ({rule})"
        heads = ("protocol", "stream", precision, *ranks[1:], "queries")
        lines += [f"| {' | '.join(heads)} |", "|---|---|---|---|---|---|---|"]
        for row in rows:
            shown = " | ".join(f"{100 * row[r]:.1f}" if row.get(r) is not None else "-" for r in ranks)
            lines.append(f"| {row['protocol']} | {row['stream']} | {shown} | {row.get('counted', '-')} |")
        lines += ["", f"In percent; dataset `{results.get('dataset')}`, {results.get('date')}."]
    else:
        lines.append("Not evaluated in the workdir.")
    lines += ["", "## Versions", "", *(f"- {name} {version}" for name, version in card.versions.items())]
    if config:
        lines += ["", "## Configuration", "", "```json", json.dumps(config, indent=2), "```"]
    return "\n".join(lines) + "\n"


def _digest(start: Mapping[str, Any]) -> str:
    return f"SHA-256 `{start['sha256']}`" if start.get("sha256") else "a workdir"
