"""The model card that goes with exported weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deskpro_jax.weights.families import Stream


def model_card(
    path: Path,
    networks: Mapping[str, Stream],
    os_streams: str,
    steps: Mapping[str, int],
    *,
    config: Mapping[str, Any] | None,
    results: Mapping[str, Any] | None,
    origin: Mapping[str, Any] | None,
    versions: Mapping[str, str],
) -> str:
    """Returns the model card of an exported file, as Markdown.

    Args:
        path: the exported file.
        networks: the networks in it, by role.
        os_streams: OSBlock streams that run.
        steps: training step of each checkpoint.
        config: the run's configuration, None where the workdir has none.
        results: the run's `results.json`, None where it was not evaluated.
        origin: `conversion.json` of weights that came from elsewhere.
        versions: of the packages that wrote the file.
    """
    lines = [
        f"# {path.stem}",
        "",
        "Weights for cloth-changing person re-identification, in the PyTorch names of the reference implementation.",
        "",
        "| network | names start with | backbone | attention | features | identities | step |",
        "|---|---|---|---|---|---|---|",
    ]
    for role, stream in networks.items():
        step = steps.get("teacher" if role == "teacher" else "student", steps.get(role, 0))
        lines.append(
            f"| {role} | `{stream.prefix}` | OSNet {stream.backbone} | {stream.attention} | {stream.feature_dim}"
            f" | {stream.identities or '-'} | {step} |"
        )
    lines += ["", f"OSBlock streams: `{os_streams}`."]
    if os_streams == "aacd":
        lines.append("Stream a runs twice and b never; what is under `conv2b` is there for strict loading alone.")
    lines += ["", "## Data", ""]
    data = (config or {}).get("data", {})
    if data:
        lines.append(f"Trained on `{data.get('name')}`, seed {(config or {}).get('seed')}.")
    elif origin is not None:
        lines.append(f"Converted from `{origin['source']}` (SHA-256 `{origin['sha256']}`); see its own documentation.")
    else:
        lines.append("Not recorded in the workdir.")
    lines += ["", "## Scores", ""]
    rows = (results or {}).get("results") or []
    if rows:
        ranks = ("mAP", "R-1", "R-5", "R-10")
        lines += [f"| protocol | stream | {' | '.join(ranks)} | queries |", "|---|---|---|---|---|---|---|"]
        for row in rows:
            shown = " | ".join(f"{100 * row[r]:.1f}" if row.get(r) is not None else "-" for r in ranks)
            lines.append(f"| {row['protocol']} | {row['stream']} | {shown} | {row.get('counted', '-')} |")
        lines += ["", f"In percent; dataset `{(results or {}).get('dataset')}`, {(results or {}).get('date')}."]
    else:
        lines.append("Not evaluated in the workdir.")
    lines += ["", "## Versions", "", *(f"- {name} {version}" for name, version in versions.items())]
    if config is not None:
        lines += ["", "## Configuration", "", "```json", json.dumps(config, indent=2), "```"]
    return "\n".join(lines) + "\n"
