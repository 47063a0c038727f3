"""A table runs each cell once, continues after any end, and reports which findings hold."""

from __future__ import annotations

import json
import math
import os
import re
import signal
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
import pytest

import runs
from configs import variants
from deskpro_jax.cli import ablate
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.evaluation.similarity import BOTH
from deskpro_jax.tables import table
from deskpro_jax.tables.deskpro import TABLE_3
from deskpro_jax.tables.plan import Cell, plan_cells, read_scores, short_reason
from deskpro_jax.tables.run import LOG, Start, run_cells
from deskpro_jax.tables.table import check_claims, figure, latex, markdown
from deskpro_jax.workdir.networks import load_networks
from small_backbones import TINY
from small_models import write_workdir

CONFIG = f"{runs.ROOT / 'configs' / 'synthetic.py'}:debug"
MAP = {"baseline": 0.2, "csa": 0.25, "csa_att": 0.3, "face": 0.4, "face_fkp": 0.5, "teacher": 0.55, "two_stream": 0.35}
MAP |= {"deskpro": 0.6, "deskpro_star": 0.7}


def score(cell: Cell) -> float:
    return MAP[cell.row.name] + 0.01 * cell.seed


def write_results(cell: Cell, **config: object) -> None:
    """Writes the results that a run writes."""
    fields: dict[str, object] = {}
    for name, value in (cell.config | config).items():
        node = fields
        *path, last = name.split(".")
        for part in path:
            node = node.setdefault(part, {})  # type: ignore[assignment]
        node[last] = value
    streams = ["face", "body", BOTH] if len(cell.row.parts) > 1 and cell.row.parts[-1][0] in "st" else ["body"]
    results = [
        {"stream": stream, "protocol": protocol, "mAP": score(cell) - (stream != streams[-1]), "R-1": score(cell) + 0.1}
        for protocol in ("general", "changed")
        for stream in streams
    ]
    cell.folder.mkdir(parents=True, exist_ok=True)
    (cell.folder / "results.json").write_text(json.dumps({"config": fields, "results": results}))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Replaces the processes of cells by ones that write results at once; returns what was run."""
    done: list[str] = []

    def start(cell: Cell, cores: Sequence[int]) -> Ended:
        done.append(cell.name)
        write_results(cell)
        return Ended()

    use(monkeypatch, start)
    return done


class Ended:
    """A process that has ended."""

    def __init__(self, code: int = 0) -> None:
        self.code = code

    def poll(self) -> int | None:
        return self.code

    def terminate(self) -> None:
        pass

    def kill(self) -> None:
        pass


def use(monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    original = ablate.run_cells
    monkeypatch.setattr(ablate, "run_cells", lambda cells, folder, jobs: original(cells, folder, jobs, start))
    monkeypatch.setattr(ablate, "build_data", lambda config, folder: folder)


def flags(folder: Path, *more: str) -> list[str]:
    jobs = [] if "--jobs" in more else ["--jobs", "1"]
    return ["--config", CONFIG, "--workdir", str(folder), *jobs, *more]


def cells_of(folder: Path, rows: str = ",".join(MAP), seeds: int = 2, *overrides: str) -> list[Cell]:
    return plan_cells(TABLE_3, TABLE_3.choose(rows.split(",")), CONFIG, overrides, seeds, folder)[0]


def test_rows_are_the_variants_and_the_paper_s_table() -> None:
    assert {row.name for row in TABLE_3.rows} == set(variants.ROWS)
    assert [row.paper for row in TABLE_3.rows][0::8] == [(32.9, 18.8), (53.7, 30.9)]


def test_a_seed_s_teacher_is_trained_once(tmp_path: Path) -> None:
    cells = cells_of(tmp_path)
    assert [cell.name for cell in cells[:2]] == ["teacher, seed 0", "baseline, seed 0"]
    assert len({cell.folder for cell in cells}) == len(cells) == 18
    for cell in cells:
        given = cell.config["teacher.checkpoint"]
        taught = cell.row.name in ("face_fkp", "deskpro", "deskpro_star")
        assert given == (str(tmp_path / "teacher" / str(cell.seed)) if taught else "")
        assert (cells[9 * cell.seed] in cell.needs) == taught
        assert cell.config["seed"] == cell.seed
        assert cell.config["data.data_dir"] == str(tmp_path / "data")
        assert cell.config["compilation_cache"] == str(tmp_path / "xla_cache")
    fields = {cell.row.name: cell.config for cell in cells}
    assert fields["baseline"]["model.attention"] == "none"
    assert fields["deskpro_star"]["model.face"] == "teacher"
    assert fields["csa"]["train.epochs"] == 2  # of the variant "debug"


def test_rows_of_two_streams_take_them_from_rows_of_one(tmp_path: Path) -> None:
    for cell in cells_of(tmp_path):
        body, face = cell.config["init.body"], cell.config["init.face"]
        if not cell.row.streams:
            assert (body, face) == ("", "")
            continue
        assert cell.config["train.epochs"] == 0
        assert body == str(tmp_path / "csa_att" / str(cell.seed))
        place = str(tmp_path / dict(cell.row.streams).get("init.face", "teacher") / str(cell.seed))
        assert face == ("" if cell.row.name == "deskpro_star" else place)
        assert {str(need.folder) for need in cell.needs} >= {body, place}
    joint, notes = plan_cells(TABLE_3, TABLE_3.choose(["two_stream"]), CONFIG, [], 1, tmp_path, joint=True)
    assert [(cell.config["train.epochs"], cell.config["init.body"], cell.needs) for cell in joint] == [(2, "", ())]
    assert not notes


@pytest.mark.parametrize("tied", ["--config.loss.extra=('own:term',)", "--config.eval.report=stitched"])
def test_streams_that_may_differ_when_trained_together_are_trained_together(tmp_path: Path, tied: str) -> None:
    cells, _ = plan_cells(TABLE_3, TABLE_3.choose(["two_stream"]), CONFIG, [tied], 1, tmp_path)
    assert [(cell.row.name, cell.config["train.epochs"]) for cell in cells] == [("two_stream", 2)]


def test_rows_that_other_rows_need_are_added(tmp_path: Path) -> None:
    cells, notes = plan_cells(TABLE_3, TABLE_3.choose(["deskpro", "csa"]), CONFIG, [], 1, tmp_path)
    assert [cell.row.name for cell in cells] == ["teacher", "csa", "csa_att", "face_fkp", "deskpro"]
    assert notes == [
        "row csa_att is run as well: deskpro take a stream of it.",
        "row face_fkp is run as well: deskpro take a stream of it.",
        "row teacher is run as well: face_fkp, deskpro learn from it.",
    ]
    given = ["--config.teacher.checkpoint=elsewhere"]
    cells, notes = plan_cells(TABLE_3, TABLE_3.choose(["deskpro_star"]), CONFIG, given, 1, tmp_path)
    assert [cell.row.name for cell in cells] == ["csa_att", "deskpro_star"]
    assert [cell.config["teacher.checkpoint"] for cell in cells] == ["elsewhere", "elsewhere"]


def test_a_folder_that_was_moved_is_read(tmp_path: Path) -> None:
    *_, cell = cells_of(tmp_path, "two_stream", 1)
    write_results(cell, **{"init.body": "/elsewhere/csa_att/0", "init.face": "/elsewhere/face/0"})
    assert read_scores(cell) is not None
    first = cells_of(tmp_path, "csa_att", 1)[0]
    write_results(first, **{"init.body": "/elsewhere"})
    with pytest.raises(InputError, match=r"init\.body"):
        read_scores(first)


def test_finished_cells_are_never_repeated(tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_results(cells_of(tmp_path, "csa,csa_att")[1])
    assert ablate.main(flags(tmp_path, "--rows", "csa,csa_att", "--seeds", "2")) == 0
    output = capsys.readouterr()
    assert ran == ["csa, seed 0", "csa, seed 1", "csa_att, seed 1"]
    assert "1 of 4 runs are finished already" in output.err
    assert re.search(r"\[3/4\] csa, seed 1, about \d+ min left", output.err)
    assert output.out == (tmp_path / "ablation.md").read_text()
    before = (tmp_path / "ablation.tex").read_text()
    assert ablate.main(flags(tmp_path, "--rows", "csa,csa_att", "--seeds", "2")) == 0
    assert len(ran) == 3
    assert (tmp_path / "ablation.tex").read_text() == before


def test_results_of_another_configuration_are_refused(
    tmp_path: Path, ran: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    cells = cells_of(tmp_path, "csa", 1)
    write_results(cells[0], **{"train.epochs": 7, "data.workers": 3})
    with pytest.raises(InputError, match=r"train\.epochs: 7 there, 2 now"):
        read_scores(cells[0])
    assert ablate.main(flags(tmp_path, "--rows", "csa", "--seeds", "1")) == 2
    error = capsys.readouterr().err
    assert "error: " in error
    assert "data.workers" not in error  # which does not decide the numbers
    (cells[0].folder / "results.json").write_text("{}")
    with pytest.raises(InputError, match="holds no results"):
        read_scores(cells[0])


def test_a_failure_stops_only_the_rows_that_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    done = []

    def start(cell: Cell, cores: Sequence[int]) -> Ended:
        done.append(cell.name)
        if cell.name == "teacher, seed 0":
            (cell.folder / LOG).write_text("begins\nerror: the disk is full\n")
            return Ended(1)
        if cell.name == "baseline, seed 1":
            return Ended(-signal.SIGKILL)
        if cell.name != "csa, seed 1":
            write_results(cell)
        return Ended()

    use(monkeypatch, start)
    assert ablate.main(flags(tmp_path, "--rows", "baseline,csa,teacher,face_fkp", "--seeds", "2")) == 1
    assert [name for name in done if not name.startswith("baseline")] == [
        *("teacher, seed 0", "csa, seed 0", "teacher, seed 1", "csa, seed 1", "face_fkp, seed 1")
    ]
    error = capsys.readouterr().err
    assert "error: 4 of 8 runs failed" in error
    assert "  teacher, seed 0: error: the disk is full (exit code 1, see " in error
    assert "  face_fkp, seed 0: teacher, seed 0, which it needs, is not finished" in error
    assert "  csa, seed 1: ended without results" in error
    assert "  baseline, seed 1: ended by SIGKILL, see " in error
    assert (
        "Finished seeds where not all 2 are: baseline 1, csa 1, face_fkp 1, teacher 1"
        in (tmp_path / "ablation.md").read_text()
    )


def test_a_signal_stops_the_runs_and_the_same_command_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Saving(Ended):
        """Ends once it is asked to."""

        def poll(self) -> int | None:
            return self.code if asked else None

        def terminate(self) -> None:
            asked.append(True)

    asked: list[bool] = []

    def start(cell: Cell, cores: Sequence[int]) -> Ended:
        if cell.row.name == "csa":
            os.kill(os.getpid(), signal.SIGTERM)
            return Saving()
        write_results(cell)
        return Ended()

    use(monkeypatch, start)
    assert ablate.main(flags(tmp_path, "--rows", "baseline,csa,csa_att", "--seeds", "1")) == 1
    assert "SIGTERM: stopped in csa, seed 0; the same command continues" in capsys.readouterr().err
    assert "| 20.0 |" in (tmp_path / "ablation.md").read_text()  # the table of what there is


def test_runs_go_side_by_side_once_needed_rows_are_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Together(Ended):
        """Ends once both rows of one stream have started: never, unless they go side by side."""

        def poll(self) -> int | None:
            return self.code if {"csa_att", "face"} <= {name for name, _ in log} else None

    log: list[tuple[str, tuple[int, ...]]] = []

    def start(cell: Cell, cores: Sequence[int]) -> Ended:
        log.append((cell.row.name, tuple(cores)))
        write_results(cell)
        return Together()

    use(monkeypatch, start)
    assert ablate.main(flags(tmp_path, "--jobs", "2", "--rows", "two_stream", "--seeds", "1")) == 0
    assert [name for name, _ in log][-1] == "two_stream"
    if len(os.sched_getaffinity(0)) > 1:
        assert not set(log[0][1]) & set(log[1][1])
    assert all(cores for _, cores in log)


def test_a_run_is_a_process_whose_output_is_shown_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(runs.ROOT))
    cell = Cell(TABLE_3.rows[0], 0, tmp_path / "baseline/0", ("--config=absent.py",))
    failed = run_cells([cell], tmp_path, 2)
    line = "error: --config absent.py: there is no such file"
    assert line in (cell.folder / LOG).read_text()
    assert f"  baseline/0: {line}" in capsys.readouterr().err
    assert failed[cell].startswith(line)
    assert failed[cell].endswith(f"(exit code 2, see {cell.folder / LOG})")


def test_an_error_ends_the_runs_that_are_under_way(tmp_path: Path) -> None:
    killed = []

    class Endless(Ended):
        def poll(self) -> int | None:
            return None

        def kill(self) -> None:
            killed.append(True)

    def start(cell: Cell, cores: Sequence[int]) -> Ended:
        if cell.row.name == "csa":
            raise OSError("no more processes")
        return Endless()

    with pytest.raises(OSError, match="no more processes"):
        run_cells(cells_of(tmp_path, "baseline,csa", 1), tmp_path, 2, start)
    assert killed == [True]


def test_the_table_has_means_spreads_and_the_paper_s_figures(tmp_path: Path, ran: list[str]) -> None:
    assert ablate.main(flags(tmp_path, "--seeds", "3", "--out", str(tmp_path / "table.tex"))) == 0
    text = (tmp_path / "table.md").read_text()
    heads = next(line for line in text.splitlines() if line.startswith("| row"))
    assert heads.endswith("| general R-1 | general mAP | changed R-1 | changed mAP | paper R-1 | paper mAP |")
    (row,) = [line for line in text.splitlines() if line.startswith("| deskpro |")]
    assert row.endswith("| 71.0 ± 1.0 | 61.0 ± 1.0 | 71.0 ± 1.0 | 61.0 ± 1.0 | 52.0 | 29.8 |")
    assert row.count("✓") == 4
    assert "general: CSA + L_att above the baseline: holds (mAP: csa_att 31.0 ± 1.0; baseline 21.0 ± 1.0;" in text
    assert "in 3 of 3 seeds" in text
    assert "changed: L_fkp above the student without it: holds" in text
    assert "general: two streams above either alone: holds" in text
    assert "without L_fkp: does not hold (mAP: two_stream 36.0 ± 1.0; csa_att 31.0 ± 1.0, face 41.0 ± 1.0;" in text
    assert "ICIP 2022" in text
    source = (tmp_path / "table.tex").read_text()
    body = source[source.index(r"\midrule") : source.index(r"\bottomrule")].splitlines()[1:]
    assert len(body) == 9
    columns = re.search(r"begin{tabular}{(\w+)}", source)[1]  # type: ignore[index]
    assert {line.count("&") + 1 for line in body} == {len(columns)}
    assert source.count("{") == source.count("}")
    assert r"DeSKPro & \checkmark & \checkmark & \checkmark &  & \checkmark &  & 71.0 {\scriptsize$\pm$ 1.0}" in source


def test_one_seed_has_no_spread_and_missing_rows_no_claims(tmp_path: Path) -> None:
    (cell,) = cells_of(tmp_path, "csa", 1)
    write_results(cell)
    scores = {cell: read_scores(cell)}
    found = figure(scores, "csa", "general", "mAP")
    assert (found.seeds, found.spread) == (1, None)
    assert math.isclose(found.mean, 25.0)
    assert str(found) == "25.0"
    assert figure(scores, "face", "general", "mAP") is None
    assert check_claims(TABLE_3, scores) == []
    assert "±" not in markdown(TABLE_3, [cell], scores, "t").split("Percent")[0]
    assert r"\pm" not in latex(TABLE_3, [cell], scores, "t")
    assert "| - |" not in markdown(TABLE_3, [cell], scores, "t")
    assert "| csa |" in markdown(TABLE_3, [cell], {}, "t")
    assert table.protocols_of({}) == ()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rows", "baselin"], "no row 'baselin'; did you mean baseline?"),
        (["--rows", ","], "--rows is empty"),
        (["--config", "absent.py"], "there is no such file"),
        (["--config", CONFIG.replace("debug", "debugg")], "No variant 'debugg'"),
        (["--config.train.epoch=3"], "no field 'epoch'"),
        (["--config.model.face=none"], "set by the rows"),
        (["--config.seed=3"], "set by the seeds"),
        (
            ["--config.loss.mask_rule=papr"],
            "loss.mask_rule is 'papr'; expected one of paper, released; did you mean paper?",
        ),
        (["--out", "absent/table"], "no folder"),
        (["--frobnicate"], "unknown argument '--frobnicate'"),
        (["--config.train.epochs=many"], "--config.train.epochs=many: invalid literal for int()"),
    ],
)
def test_bad_flags_end_with_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ablate.main(flags(tmp_path / "out", *more)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_configurations_must_know_the_rows(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text("from configs import base\n\ndef get_config():\n    return base.get_config()\n")
    with pytest.raises(InputError, match=r"own\.py"):
        plan_cells(TABLE_3, TABLE_3.rows[:1], str(tmp_path / "own.py"), [], 1, tmp_path)
    with pytest.raises(MissingInputError):
        plan_cells(TABLE_3, TABLE_3.rows[:1], str(tmp_path / "absent.py"), [], 1, tmp_path)


def test_the_reason_is_the_last_error() -> None:
    assert short_reason("a\nerror: loss is nan\nI1125 bye\n") == "error: loss is nan"
    assert short_reason("Traceback\n  File\nValueError: no\n") == "ValueError: no"
    assert short_reason("killed\n\n") == "killed"
    assert short_reason("") == "it printed nothing"


@pytest.mark.slow
def test_a_row_is_really_trained(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", runs.environment()["PYTHONPATH"])
    short = [f"--config.data.data_dir={tiny_data}", "--config.train.epochs=1", "--config.eval.every=0"]
    short.append(f"--config.model.backbone={TINY}")
    arguments = flags(tmp_path, "--rows", "face", "--seeds", "1", *short)
    assert ablate.main([*arguments, "--config.train.base_lr=1e-7"]) == 0
    assert "| face | 4 |" in capsys.readouterr().out
    assert (tmp_path / "face/0/student/checkpoints").is_dir()
    assert ablate.main([*arguments, "--config.train.base_lr=1e-7"]) == 0
    assert "1 of 1 runs are finished already" in capsys.readouterr().err


def _leaves(variables: dict[str, dict[str, object]], stream: str) -> list[object]:
    return [leaf for tree in variables.values() for leaf in jax.tree.leaves(tree[f"{stream}_stream"])]


@pytest.mark.slow
def test_a_stream_trained_apart_is_that_trained_beside_the_other(tiny_data: Path, tmp_path: Path) -> None:
    for name, row in (("joint", "two_stream"), ("apart", "face")):
        runs.run(runs.config(tiny_data, f"debug,{row}", train__epochs=1), tmp_path / name)
    joint, apart = (load_networks(tmp_path / name).variables[0] for name in ("joint", "apart"))
    for one, other in zip(_leaves(apart, "face"), _leaves(joint, "face"), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-6)


@pytest.fixture(scope="module")
def put_together(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A workdir of two streams, one of a face stream, and one that takes a stream of each; OSNets, scored."""
    folder = tmp_path_factory.mktemp("together")
    taken = {"init__body": str(folder / "joint"), "init__face": str(folder / "face"), "train__epochs": 0}
    for seed, (name, row) in enumerate((("joint", "two_stream"), ("face", "face"), ("taken", "two_stream"))):
        fields = {"model__backbone": "x0_25", "eval__flip": False, **(taken if name == "taken" else {})}
        if name != "taken":
            write_workdir(folder / name, tiny_data, f"debug,{row}", seed=seed, **fields)
        mode = "train" if name == "taken" else "evaluate"
        runs.run(runs.config(tiny_data, f"debug,{row}", **fields), folder / name, mode)
    return {path.name: path for path in folder.iterdir()}


def test_a_run_of_no_epochs_takes_the_streams_of_others(put_together: dict[str, Path]) -> None:
    joint, face, taken = (load_networks(put_together[name]).variables[0] for name in ("joint", "face", "taken"))
    for stream, source in (("body", joint), ("face", face)):
        for one, other in zip(_leaves(taken, stream), _leaves(source, stream), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_run_of_no_epochs_scores_what_it_begins_with(put_together: dict[str, Path]) -> None:
    results = {name: json.loads((path / "results.json").read_text())["results"] for name, path in put_together.items()}
    found = {
        name: {r["stream"]: r["mAP"] for r in rows if r["protocol"] == "general"} for name, rows in results.items()
    }
    assert found["taken"]["body"] == pytest.approx(found["joint"]["body"], abs=1e-6)
    assert found["taken"]["face"] == pytest.approx(found["face"]["face"], abs=1e-6)
    assert BOTH in found["taken"]
    assert (put_together["taken"] / "student/start.json").is_file()
