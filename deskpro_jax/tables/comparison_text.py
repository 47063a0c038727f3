"""A comparison of methods as Markdown, LaTeX and CSV."""

from __future__ import annotations

import csv
import io

from deskpro_jax.tables.comparison import Comparison, Line
from deskpro_jax.tables.quoted import QuotedRow
from deskpro_jax.tables.quoted_table import markdown_table, quoted_markdown
from deskpro_jax.tables.table import FIGURES, escape, latex_figure


def score_columns(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Returns the heads of the table of scores and its rows, as text."""
    columns = [(protocol, name) for protocol in comparison.protocols for name in FIGURES]
    heads = ["method", "variant", *(f"{protocol} {name}" for protocol, name in columns)]
    if comparison.published:
        heads.append(f"{comparison.published.title}, published R-1 / mAP")
    rows = []
    for line in comparison.lines:
        cells = [line.row.label, line.row.name]
        cells += ["-" if (value := line.scores.get(key)) is None else str(value) for key in columns]
        rows.append([*cells, published_text(line)] if comparison.published else cells)
    return heads, rows


def cost_columns(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Returns the heads of the table of sizes and speeds and its rows, as text."""
    heads = ["method", "parameters, million", "GFLOP per image", "images/s"]
    rows = []
    for line in comparison.lines:
        costs = line.costs
        figures = (
            ["-"] * 3
            if costs is None
            else [f"{costs.parameters / 1e6:.3g}", f"{costs.gflop:.3g}", _rate(costs.images_per_second)]
        )
        rows.append([line.row.label, *figures])
    return heads, rows


def _rate(images_per_second: float) -> str:
    return f"{images_per_second:,.0f}" if images_per_second >= 100 else f"{images_per_second:.3g}"


def recipe_columns(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Returns in what the recipes differ, as the heads of a table and its rows."""
    rows = [
        [line.row.label, *(line.recipe[name] for name in comparison.differ)] for line in comparison.lines if line.recipe
    ]
    return ["method", *comparison.differ], rows


def published_text(line: Line) -> str:
    """Returns the published figures of a method in short: "52.0 / 29.8", with their settings if several."""
    return "; ".join(_quoted(row) for row in line.quoted) or "-"


def _quoted(row: QuotedRow) -> str:
    texts = []
    for setting, scores in row.scores.items():
        map_text = "-" if scores.map is None else f"{scores.map:.1f}"
        texts.append(f"{setting} {scores.r1:.1f} / {map_text}".strip())
    return ", ".join(texts)


def remarks(comparison: Comparison) -> list[str]:
    """Returns notes on how to read the figures, a sentence or two each."""
    seeds = comparison.seeds
    spread = f"mean ± sample standard deviation over {seeds} seeds" if seeds > 1 else "one seed"
    texts = [f"Scores on {comparison.dataset} in percent, {spread}, each run scored at its last checkpoint."]
    texts += [f"{name}: {text}." for name, text in comparison.protocols.items() if text]
    texts += [f"{line.row.label}: {line.problem}" for line in comparison.lines if line.problem]
    short = [f"{line.row.label} {line.seeds}" for line in comparison.lines if 0 < line.seeds < seeds]
    if short:
        texts.append(f"Finished seeds where not all {seeds} are: {', '.join(short)}.")
    devices = sorted({line.costs.device for line in comparison.lines if line.costs})
    if devices:
        texts.append(
            "Parameters without classifiers. GFLOP of convolutions and matrix products, two operations for each"
            " multiply-add, with the mirrored image where it is added. Images/s: embedding of images in memory, one"
            f" method after the other, on {', '.join(devices)}."
        )
    if comparison.published and not comparison.of_same_dataset:
        texts.append(
            f"The published figures are of {comparison.published.title}, not of {comparison.dataset}: they do not"
            " compare with those beside them."
        )
    return texts


def markdown(comparison: Comparison) -> str:
    """Returns the comparison as Markdown."""
    heads, rows = score_columns(comparison)
    parts = [f"{comparison.title}\n", markdown_table(heads, rows, heads[2:])]
    parts.append("".join(f"- {text}\n" for text in remarks(comparison)))
    heads, rows = cost_columns(comparison)
    parts.append(markdown_table(heads, rows, heads[1:]))
    heads, rows = recipe_columns(comparison)
    if rows:
        parts.append("In what the recipes differ:\n")
        parts.append(markdown_table(heads, rows, ()))
        same = "; ".join(f"{name} {value}" for name, value in comparison.same.items())
        parts.append(f"The same for all: {same}.\n" if same else "")
    if comparison.published:
        parts.append(quoted_markdown([comparison.published]))
    return "\n".join(part for part in parts if part)


def latex(comparison: Comparison) -> str:
    """Returns scores, sizes and speeds for LaTeX; it needs the package booktabs."""
    groups, published = list(comparison.protocols), comparison.published
    heads = " & ".join(rf"\multicolumn{{2}}{{c}}{{{escape(name)}}}" for name in groups)
    rules = "".join(rf"\cmidrule(lr){{{2 + 2 * i}-{3 + 2 * i}}}" for i in range(len(groups)))
    names = [*FIGURES * len(groups), "M", "GFLOP", "images/s"]
    first = ["", *([heads] if groups else []), "", "", ""]
    if published:
        names.append("published R-1 / mAP")
        first.append(escape(published.title))
    lines = [
        rf"% {comparison.title}",
        *(rf"% {text}" for text in remarks(comparison)),
        rf"\begin{{tabular}}{{l{'r' * len(names)}}}",
        r"\toprule",
        " & ".join(first) + r" \\",
        rules,
        " & ".join(["Method", *names]) + r" \\",
        r"\midrule",
    ]
    columns = [(protocol, name) for protocol in groups for name in FIGURES]
    for line, (_, *costs) in zip(comparison.lines, cost_columns(comparison)[1], strict=True):
        scores = ["--" if (value := line.scores.get(key)) is None else latex_figure(value) for key in columns]
        cells = [escape(line.row.label), *scores, *(cost.replace("-", "--") if cost == "-" else cost for cost in costs)]
        if published:
            text = published_text(line)
            cells.append("--" if text == "-" else escape(text))
        lines.append(" & ".join(cells) + r" \\")
    return "\n".join([*(line for line in lines if line), r"\bottomrule", r"\end{tabular}", ""])


def to_csv(comparison: Comparison) -> str:
    """Returns the comparison as CSV: a line for each method and protocol, and one for each published figure."""
    recipe = [*comparison.differ, *comparison.same]
    heads = ["method", "variant", "dataset", "protocol", "seeds", "R-1", "R-1_std", "mAP", "mAP_std", "parameters"]
    heads += ["gflop_per_image", "images_per_second", *(name.replace(" ", "_") for name in recipe), "source", "problem"]
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, heads, restval="", lineterminator="\n")
    writer.writeheader()
    for line in comparison.lines:
        own: dict[str, object] = {"method": line.row.label, "variant": line.row.name, "dataset": comparison.dataset}
        own |= {"seeds": line.seeds, "problem": line.problem, "source": "measured"}
        own |= {name.replace(" ", "_"): text for name, text in line.recipe.items()}
        if line.costs:
            own |= {"parameters": line.costs.parameters, "gflop_per_image": line.costs.gflop}
            own["images_per_second"] = line.costs.images_per_second
        for protocol in comparison.protocols if line.scores else ("",):
            figures: dict[str, object] = {}
            for name in FIGURES:
                if value := line.scores.get((protocol, name)):
                    figures |= {name: value.mean, f"{name}_std": "" if value.spread is None else value.spread}
            writer.writerow(own | {"protocol": protocol} | figures)
    for row in comparison.published.rows if comparison.published else ():
        assert comparison.published is not None
        for setting, scores in row.scores.items():
            protocol = f"{setting}: {row.protocol}" if setting else row.protocol
            quoted = {"method": row.method.name, "dataset": comparison.published.dataset, "protocol": protocol}
            figures = {"R-1": scores.r1, "mAP": "" if scores.map is None else scores.map}
            writer.writerow(quoted | figures | {"source": row.source})
    return buffer.getvalue()
