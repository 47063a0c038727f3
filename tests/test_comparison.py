"""A comparison trains each method by its recipe once, and writes one table in four formats beside published figures."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

import runs
from deskpro_jax import methods
from deskpro_jax.cli import compare
from deskpro_jax.data.datasets.find import NAMES
from deskpro_jax.tables import costs, quoted
from deskpro_jax.tables.comparison import comparison_table, known_methods, label_of
from deskpro_jax.tables.costs import Costs, read_costs
from deskpro_jax.tables.plan import Cell, plan_cells
from deskpro_jax.tables.quoted_table import quoted_markdown
from deskpro_jax.tables.run import LOG, was_refused
from small_backbones import TINY
from test_ablation import Ended

CONFIG = f"{runs.ROOT / 'configs' / 'synthetic.py'}:debug"
MAP = {"csa_att": 0.3, "pcb": 0.2, "reidcaps": 0.25, "lmbn": 0.4}
COSTS = Costs(1_234_567, 0.5, 321.0, "cpu:cpu")


def write_results(cell: Cell) -> None:
    """Writes the results that a run writes."""
    scores = {"mAP": MAP[cell.row.name] + 0.01 * cell.seed, "R-1": MAP[cell.row.name] + 0.1}
    record = {
        "checkpoint": {"report": "last", cell.row.name: 10},
        "config": json.loads(cell.configuration.to_json_best_effort()),
        "results": [{"stream": "body", "protocol": protocol, **scores} for protocol in ("general", "cc")],
    }
    cell.folder.mkdir(parents=True, exist_ok=True)
    (cell.folder / "results.json").write_text(json.dumps(record))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces processes by ones that write results at once, but for `lmbn`, which fails; returns what was run."""
    done: list[str] = []
    original = compare.run_cells

    def start(cell: Cell, cores: Sequence[int]) -> Ended:
        done.append(cell.name)
        if cell.row.name == "lmbn":
            code = cell.seed + 1  # 1 of seed 0, 2 of seed 1
            (cell.folder / LOG).write_text("error: this dataset has no outfits\n")
            return Ended(code)
        write_results(cell)
        return Ended()

    def measure(folder: Path) -> str:
        done.append(f"costs of {folder.parent.name}")
        costs.write_json(folder / costs.FILE, COSTS._asdict())
        return ""

    monkeypatch.setattr(compare, "run_cells", lambda cells, folder, jobs: original(cells, folder, jobs, start))
    monkeypatch.setattr(compare, "build_data", lambda config, folder: folder)
    monkeypatch.setattr(compare, "measure_apart", measure)
    return done


def flags(folder: Path, names: str, *more: str) -> list[str]:
    return ["--config", CONFIG, "--workdir", str(folder), "--jobs", "1", "--methods", names, *more]


def test_each_method_is_trained_by_its_recipe_which_debug_makes_short(tmp_path: Path) -> None:
    table = comparison_table(["pcb", "csa_att"], ["pcb=resnet50.pth"])
    pcb, csa = plan_cells(table, table.rows, CONFIG, [], 1, tmp_path, rows_first=True)[0]
    assert pcb.config["model.name"] == "pcb"
    assert pcb.config["train.optimizer"] == "sgd"
    assert pcb.config["train.epochs"] == 2  # of the variant "debug"
    assert pcb.config["init.body"] == "resnet50.pth"
    assert (csa.config["model.name"], csa.config["init.body"]) == ("deskpro", "")
    assert pcb.config["data.data_dir"] == csa.config["data.data_dir"] == str(tmp_path / "data")


def test_every_variant_of_every_method_can_be_a_row() -> None:
    assert set(methods.variants()) <= set(known_methods())
    assert {"deskpro", "deskpro_star"} <= set(known_methods())
    assert (label_of("lmbn"), label_of("lmbn_r"), label_of("osnet")) == ("LightMBN", "LightMBN (lmbn_r)", "osnet")


def test_the_table_has_scores_costs_recipes_and_published_figures(
    tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main(flags(tmp_path, "csa_att,pcb,reidcaps", "--seeds", "2")) == 0
    assert ran[-3:] == ["costs of csa_att", "costs of pcb", "costs of reidcaps"]
    assert len(ran) == 9
    text = (tmp_path / "comparison.md").read_text()
    assert text == capsys.readouterr().out
    rows = {line.split(" | ")[1]: line for line in text.splitlines() if line.count(" | ") > 5}
    assert "| 30.0 ± 0.0 | 20.5 ± 0.7 | 30.0 ± 0.0 | 20.5 ± 0.7 |" in rows["pcb"]
    assert "| 1.23 | 0.5 | 321 |" in text
    assert re.search(r"\| PCB \| resnet14_x0_25 \|.*sgd", text)
    assert "The same for all: " in text
    assert "| DeSKPro | ICIP 2022 | 52.0 | 81.6 | 29.8 |" in text
    assert "The published figures are of Celeb-reID-light, not of synthetic_tiny" in text
    # The recipe of ReIDCaps integrates by trapezoids: in one table there is one way.
    config = json.loads((tmp_path / "reidcaps/0/results.json").read_text())["config"]
    assert config["eval"]["average_precision"] == "step"

    table = (tmp_path / "comparison.tex").read_text()
    body = table[table.index(r"\midrule") : table.index(r"\bottomrule")].splitlines()[1:]
    columns = re.search(r"begin{tabular}{(\w+)}", table)[1]  # type: ignore[index]
    assert {line.count("&") + 1 for line in body} == {len(columns)}
    lines = list(csv.DictReader(io.StringIO((tmp_path / "comparison.csv").read_text())))
    measured = [line for line in lines if line["source"] == "measured"]
    assert len(measured) == 6
    assert (measured[2]["variant"], measured[2]["parameters"], measured[2]["seeds"]) == ("pcb", "1234567", "2")
    assert float(measured[2]["mAP"]) == pytest.approx(20.5)
    assert {line["dataset"] for line in lines} == {"synthetic_tiny", "celeb_light"}

    page = (tmp_path / "comparison.html").read_text()
    assert "20.5 ± 0.7" in page
    assert "Published figures on Celeb-reID-light" in page
    assert "http" not in page.replace("http-equiv", "")  # nothing from elsewhere

    assert compare.main(flags(tmp_path, "csa_att,pcb,reidcaps", "--seeds", "2")) == 0
    assert len(ran) == 9  # neither a run nor a measurement is repeated
    assert (tmp_path / "comparison.md").read_text() == text


def test_a_method_that_the_dataset_cannot_serve_is_a_row_that_says_why(
    tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main(flags(tmp_path, "pcb,lmbn", "--seeds", "1")) == 1  # it failed: trying again may help
    assert "lmbn, seed 0: error: this dataset has no outfits" in capsys.readouterr().err
    assert "- LightMBN: failed: this dataset has no outfits" in (tmp_path / "comparison.md").read_text()
    assert was_refused("error: no outfits (exit code 2, see /a/log.txt)")
    assert not was_refused("error: no memory (exit code 1, see /a/log.txt)")


def test_a_refusal_alone_does_not_fail_the_command(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = compare.run_cells

    def refusing(cells: Sequence[Cell], folder: Path, jobs: int) -> dict[Cell, str]:
        failed = original([cell for cell in cells if cell.row.name != "lmbn"], folder, jobs)
        lmbn = {cell: "error: no outfits (exit code 2, see /log.txt)" for cell in cells if cell.row.name == "lmbn"}
        return failed | lmbn

    monkeypatch.setattr(compare, "run_cells", refusing)
    assert compare.main(flags(tmp_path, "lmbn,pcb", "--seeds", "2")) == 0
    text = (tmp_path / "comparison.md").read_text()
    assert "- LightMBN: not trained: no outfits\n" in text
    assert "| LightMBN | lmbn | - | - | - | - | 32.9 / 18.8 |" in text
    assert "LightMBN: not trained: no outfits" in (tmp_path / "comparison.html").read_text()
    assert compare.main(flags(tmp_path / "alone", "lmbn", "--seeds", "1")) == 1  # nothing to compare


def test_a_method_that_the_configuration_cannot_train_is_left_out(
    tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    smaller = "--config.data.body_size=(96, 48)"  # HACNN takes photos of one size only
    assert compare.main(flags(tmp_path, "hacnn,pcb", "--seeds", "1", smaller)) == 0
    assert ran == ["pcb, seed 0", "costs of pcb"]
    assert "hacnn is not trained: " in capsys.readouterr().err
    assert re.search(r"- HACNN: not trained: .*160", (tmp_path / "comparison.md").read_text())
    assert compare.main(flags(tmp_path, "hacnn", "--seeds", "1", smaller)) == 2
    assert "none of --methods can be trained" in capsys.readouterr().err


def test_results_of_another_configuration_are_refused(
    tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare.main(flags(tmp_path, "pcb", "--seeds", "1")) == 0
    assert compare.main(flags(tmp_path, "pcb", "--seeds", "1", "--config.train.epochs=3")) == 2
    assert "train.epochs: 2 there, 3 now" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--methods", "pcp"], "--methods: no method 'pcp'; did you mean pcb"),
        (["--methods", "xyzzy"], "--methods: no method 'xyzzy'; there are baseline"),
        (["--methods", ","], "--methods is empty"),
        (["--start", "pcb"], "--start is 'pcb'; expected METHOD=FILE"),
        (["--start", "mgn=a.pth"], "--start: 'mgn' is none of --methods"),
        (["--config.model.name=mgn"], "--config.model.name is set by the rows"),
        (["--config.eval.protocols=('generel',)"], "no protocol 'generel'; did you mean general?"),
        (["--config.data.name=celebb"], "there is no such dataset"),
        (["--config", "absent.py"], "there is no such file"),
        (["--out", "absent/table"], "no folder"),
        (["--frobnicate"], "unknown argument '--frobnicate'"),
    ],
)
def test_bad_flags_end_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert compare.main(flags(tmp_path / "out", "pcb", *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_flags_that_are_missing_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--methods", "pcb"]) == 2
    assert "error: --config is missing" in capsys.readouterr().err


def test_published_figures_are_printed_without_any_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert compare.main(["--published"]) == 0
    assert capsys.readouterr().out == quoted_markdown(quoted.TABLES)
    assert compare.main(["--published", "Celeb-reID-light"]) == 0
    light = capsys.readouterr().out
    assert light.count("### ") == 1
    assert light.startswith("### Celeb-reID-light")
    assert compare.main(["--published", "--config", "prcc"]) == 0
    assert capsys.readouterr().out.startswith("### PRCC\n")
    assert compare.main(["--published", "prc"]) == 2
    assert "did you mean prcc?" in capsys.readouterr().err


def test_the_page_of_the_documentation_has_the_published_figures() -> None:
    page = (runs.ROOT / "docs/comparison.md").read_text(encoding="utf-8")
    marker = "<!-- published figures: deskpro compare --published -->\n\n"
    assert page.partition(marker)[2] == quoted_markdown(quoted.TABLES)


def test_quoted_rows_name_protocol_and_source() -> None:
    for table in quoted.TABLES:
        for row in table.rows:
            assert set(row.scores) == set(table.settings)
            assert row.protocol
            assert row.source
            assert row.method.checkpoint
    later = {"deepchange", "last", "mevid"}
    assert {table.dataset for table in quoted.TABLES} - set(NAMES) <= later
    named = [variant for method in quoted.METHODS for variant in method.variants]
    assert len(named) == len(set(named))


def test_a_table_of_the_paper_is_quoted_whole() -> None:
    text = Path("/work/shared/paper.txt")
    if not text.is_file():
        pytest.skip("the paper is not here")
    words = text.read_text()
    first = words[words.index("Table 1. Comparison") : words.index("Table 2. Comparison")]
    second = words[words.index("Table 2. Comparison") : words.index("3.3. Effectiveness")]
    for tables, part, source in (((quoted.CELEB_LIGHT, quoted.CELEB), first, "Table 1"), ((quoted.PRCC,), second, "2")):
        printed = re.findall(r"\t(?:<u>)?(\d+\.\d)", part)
        rows = [
            row for table in tables for row in table.rows if "Table 3" not in row.source and "DeSKPro" in row.source
        ]
        figures = [value for row in rows for scores in row.scores.values() for value in scores if value is not None]
        assert sorted(figures) == sorted(float(value) for value in printed), source


@pytest.mark.slow
def test_two_methods_are_really_compared(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", runs.environment()["PYTHONPATH"])
    short = [f"--config.data.data_dir={tiny_data}", "--config.train.epochs=1", "--config.eval.every=0"]
    short += ["--config.eval.batch=4", f"--config.model.backbone={TINY}"]
    assert compare.main(flags(tmp_path, "csa_att,face", "--seeds", "1", *short)) == 0
    text = capsys.readouterr().out
    for name in ("csa_att", "face"):
        found = read_costs(tmp_path / name / "0")
        assert found is not None
        assert found.parameters > 1000
        assert found.gflop > 0
        assert found.images_per_second > 0
    assert "| face | face | " in text
    assert "images seen" in text
