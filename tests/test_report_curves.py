"""What the report reads of a workdir's files: metrics into curves, results into tables, fields beside defaults."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from configs import base
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.report import charts, configuration, curves, record, tables


def write_metrics(path: Path, lines: list[dict[str, Any]], rest: str = "") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + rest)
    return path


def line(step: int, **values: Any) -> dict[str, Any]:
    return {"step": step, "epoch": step / 4, "time": 0.0, **values}


def test_every_term_and_every_score_has_a_curve(tmp_path: Path) -> None:
    lines = [
        line(s, total=9.0 - s, kd=1.0, ce_face=2.0, new_term=s, gradient_norm=s, learning_rate=0.1) for s in (2, 4)
    ]
    names = ("general/face/mAP", "general/both/mAP", "cc/both/mAP", "cc/both/R-1", "cc/both/R-20")
    lines.append(line(4, **dict.fromkeys(names, 0.5), **{"cc/both/mAP_std": 0.1, "mAP": 0.5, "face_mAP": 0.5}))
    metrics = curves.read_metrics(write_metrics(tmp_path / "metrics.jsonl", lines, '{"step": 6, "tot'))
    assert metrics is not None
    assert (metrics.broken, metrics.axis, metrics.last_epoch) == (1, "epoch", 1.0)
    found = curves.phase_charts(metrics)
    assert [chart.title for chart in found.losses] == ["total", "kd", "ce_face", "new_term"]
    np.testing.assert_array_equal(found.losses[0].curves[0].positions, [0.5, 1.0])
    np.testing.assert_array_equal(found.losses[0].curves[0].values, [7.0, 5.0])
    assert [chart.title for chart in found.scores] == ["general, mAP", "cc, mAP", "cc, R-1"]
    assert [chart.title for chart in found.more_scores] == ["cc, R-20"]
    assert [curve.name for curve in found.scores[0].curves] == ["face", "both"]
    assert found.scores[1].curves[0].deviation == pytest.approx([0.1])
    assert found.scores[0].summary == "face: 50 %; both: 50 %"
    assert [chart.title for chart in found.rate] == ["learning rate"]
    assert [chart.title for chart in found.norms] == ["gradient norm"]


def test_long_runs_are_thinned_and_odd_numbers_do_no_harm(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [line(s, total=1.0, learning_rate=0.1) for s in range(10_000)]
    lines += [{"step": 10_000, "epoch": None, "time": 0, "total": "nan"}]
    metrics = curves.read_metrics(write_metrics(tmp_path / "metrics.jsonl", lines))
    assert metrics is not None
    assert metrics.axis == "step"
    chart = curves.phase_charts(metrics).losses[0]
    assert len(chart.curves[0].values) <= 240
    assert chart.curves[0].positions[-1] > 9_900
    assert charts.draw_lines(chart, "x").endswith("</svg>\n")
    assert curves.read_metrics(tmp_path / "none.jsonl") is None


def test_small_values_are_told_apart_on_their_axis() -> None:
    chart = charts.LineChart("rate", "", "epoch", (charts.Curve("rate", np.arange(4.0), np.arange(4) * 1.25e-3),))
    svg = charts.draw_lines(chart, "rate")
    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg)
    assert {"0", "0.001", "0.002", "0.003"} <= set(texts)


def test_a_chart_is_text_in_the_colours_of_its_page() -> None:
    curve = charts.Curve('<both> & "x$y$"', np.arange(3.0), np.array([0.1, 0.2, 0.3]), np.full(3, 0.05))
    chart = charts.LineChart("mAP", "", "epoch", (curve, curve._replace(name="face")), percent=True)
    svg = charts.draw_lines(chart, "one")
    assert "&lt;both&gt; &amp; " in svg
    assert "<both>" not in svg
    assert {"var(--ink)", "var(--series-1)", "var(--series-2)"} <= set(re.findall(r"var\([^)]*\)", svg))
    assert not re.search(r"#0[0-9a-f]{5}|https?:|<style|xlink|DejaVu", svg)
    assert ">epoch</text>" in svg
    assert "stroke-dasharray" in svg  # told apart without colour
    used, defined = set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)), set(re.findall(r' id="([^"]+)"', svg))
    assert used == defined
    assert all(name.startswith("one-") for name in defined)


def test_results_are_percentages_with_deviations_baselines_and_reasons() -> None:
    entry = {"protocol": "general", "stream": "both", "description": "all", "mAP": 0.5, "R-1": 0.25, "gallery": 9}
    entry |= {"counted": 3, "dropped": {"no image": 2}, "std": {"mAP": 0.011}}
    again = {**entry, "protocol": "general_reranked", "rerank": {"k1": 20}}
    baseline = {"protocol": "general", "stream": "raw pixels", "map": 0.1, "ranks": {"R-1": 0.2}, "counted": 3}
    content = {"dataset": "celeb", "trained_on": None, "results": [entry, again], "baselines": [baseline]}
    content |= {"left_out": {"cc": "protocol 'cc': no clothes"}, "checkpoint": {"report": "last", "student": 12}}
    found = tables.read_results("results.json", content, tables.checkpoint_of(content))
    assert found.title == "celeb, checkpoint: last, student step 12, networks trained on another dataset"
    first, second, third = found.rows
    assert first.figures == ["50.0 ± 1.1", "25.0", "-", "-", "-"]
    assert (first.dropped, first.reasons) == ("2", "2 no image")
    assert (second.kind, third.kind) == ("re-ranked", "baseline")
    assert third.figures[:2] == ["10.0", "20.0"]
    assert found.notes["cc"] == "left out: no clothes"


def test_fields_that_differ_from_the_defaults_are_told() -> None:
    config = json.loads(base.get_config().to_json_best_effort())
    config["loss"]["attention_weight"] = 0.0
    config["data"]["body_size"] = [64, 32]
    config["old"] = {"field": 1}
    found = {f"{group}.{f.name}": f for group, fields in configuration.fields(config).items() for f in fields}
    assert {name for name, field in found.items() if field.differs} == {
        "loss.attention_weight",
        "data.body_size",
        "old.field",
    }
    assert (found["loss.attention_weight"].value, found["loss.attention_weight"].default) == ("0.0", "7.0")
    assert found["old.field"].default == "not a field of this version"
    assert found[".seed"].value == "0"


def test_what_is_no_workdir_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingInputError, match=r"no workdir at .*none"):
        record.read_record(tmp_path / "none")
    with pytest.raises(InputError, match="is not a workdir"):
        record.read_record(tmp_path)
    (tmp_path / "config.json").write_text("{broken")
    (tmp_path / "results-on-prcc.json").write_text('{"dataset": "prcc"}')
    found = record.read_record(tmp_path)
    assert found.config is None
    assert len(found.problems) == 1
    assert "config.json is damaged" in found.problems[0]
    assert list(found.results) == ["results-on-prcc.json"]


def test_the_state_of_a_phase_in_words(tmp_path: Path) -> None:
    config = json.loads(base.get_config().to_json_best_effort())
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = record.read_record(tmp_path)
    assert record.phase_state(found, "teacher", None) == "not begun"
    assert record.phase_state(found, "teacher", 140.0) == "finished: 140 epochs"
    assert record.phase_state(found, "student", 3.5).startswith("unfinished: 3.5 of 140 epochs")
    config["teacher"]["checkpoint"] = "runs/other"
    config["model"] |= {"body": False, "face": "teacher"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = record.read_record(tmp_path)
    assert record.phase_state(found, "teacher", None) == "given, not trained here: runs/other"
    assert record.phase_state(found, "student", None) == "not part of this configuration"
