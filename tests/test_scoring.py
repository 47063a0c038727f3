"""From files as authors lay them out to figures worked out by hand: built, labelled, selected, ranked and scored."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import author_trees
import runs
from deskpro_jax.data.build import builder
from deskpro_jax.data.load import dataset
from deskpro_jax.errors import InputError
from deskpro_jax.evaluation import evaluate, results_files, scoring
from deskpro_jax.evaluation.protocols import draw_single_shot, find_protocols
from deskpro_jax.evaluation.reranking import Reranking
from deskpro_jax.models.contract import StreamSpec
from deskpro_jax.models.lmbn import PARTS

# The gallery of each tree from the nearest to the farthest, the same for every query.
ORDER = {
    "celeb": ("1_10_0", "2_1_0", "1_11_0", "2_20_0", "2_2_0"),
    "celeb_light": ("1_10_0", "2_1_0", "1_11_0", "2_20_0", "2_2_0"),
    "prcc": ("001_A_cropped_rgb001", "005_A_cropped_rgb001", "001_A_cropped_rgb002"),
    "ltcc": ("009_1_c4_000024", "003_1_c1_000020", "003_2_c3_000022", "005_1_c2_000023", "003_1_c2_000021"),
    "vc_clothes": (
        *("0001-04-02-05", "0006-02-01-01", "0001-02-01-05"),
        *("0006-03-01-02", "0006-04-02-02", "0006-01-03-01"),
    ),
    "last": ("000009_s05_1", "000001_s01_3", "000007_s01_1"),
    "deepchange": ("P0007_C01_A_0002", "P0009_C03_A_0001", "P0007_C01_B_0003", "P0008_C02_B_0002"),
    "folder": ("test/g2", "test/g1"),
}
# Average precisions of the queries in the order of their names, None where no correct image is left.
PRECISIONS: dict[str, dict[str, list[float | None]]] = {
    "celeb": {
        "image_number": [(1 / 1 + 2 / 3) / 2, (1 / 2 + 2 / 4 + 3 / 5) / 3],
        "first_digit": [None, (1 / 2 + 2 / 4 + 3 / 5) / 3],  # 1_10 and 1_11 are taken for the camera of 1_1
        "none": [(1 / 1 + 2 / 3) / 2, (1 / 2 + 2 / 4 + 3 / 5) / 3],
    },
    "prcc": {
        "cross_clothes_multi_shot": [(1 / 1 + 2 / 3) / 2, 1 / 2],
        "same_clothes_multi_shot": [(1 / 1 + 2 / 3) / 2, 1 / 2],
    },
    "ltcc": {
        "general": [(1 / 2 + 2 / 4) / 2, (1 / 2 + 2 / 3) / 2, 1 / 4],
        "cc": [1 / 2, 1 / 2, None],  # 005 is in the gallery in its query's outfit alone
        "sc": [1 / 3, 1 / 2, 1 / 4],
    },
    "vc_clothes": {
        "all": [(1 / 1 + 2 / 3) / 2, (1 / 2 + 2 / 4 + 3 / 5) / 3, (1 / 2 + 2 / 4 + 3 / 5) / 3],
        "same_clothes": [1 / 2, 1 / 1],  # cameras 2 and 3: the query of camera 4 takes no part
        "cross_clothes": [1 / 1, 1 / 2, 1 / 2],
    },
    "last": {"general": [1 / 2, 1 / 3]},
    "deepchange": {"general": [1 / 2, None]},  # 0002 of person 7 is of the query's tracklet, 0003 of its camera only
    "folder": {"general": [1 / 2], "cc": [1 / 2], "none": [1 / 2]},
}
PRECISIONS["celeb_light"] = PRECISIONS["celeb"]


def build(name: str, folder: Path, keep: tuple[str, ...] | None = None) -> scoring.Splits:
    """Builds the tree of a dataset, of its test images only those in `keep`, and opens query and gallery."""
    tree = author_trees.write(name, folder / "raw")
    for path, photo in tree.items():
        if keep is not None and photo.split != "train" and photo.image_id not in keep:
            (folder / "raw" / path).unlink()
    if name == "folder" and keep is not None:
        kept = {path: photo for path, photo in tree.items() if photo.split == "train" or photo.image_id in keep}
        author_trees.write_manifest(folder / "raw" / "manifest.csv", kept)
    builder.build(name, folder / "data", folder / "raw", allow_different_size=True, warn=lambda text: None)
    return dataset.load(name, folder / "data", "query"), dataset.load(name, folder / "data", "gallery")


BODY = evaluate.similarity_of([StreamSpec("body", "body", PARTS, (), 2)])


def embeddings(splits: scoring.Splits) -> list[np.ndarray]:
    """Returns seven equal parts an image: queries at angle 0, the gallery at angles in the order of `ORDER`."""
    order = ORDER[splits[0].name]
    angles = [np.zeros(len(splits[0])), 0.1 + 0.1 * np.array([order.index(name) for name in splits[1].image_id])]
    return [np.tile(np.stack([np.cos(angle), np.sin(angle)], axis=1), 7) for angle in angles]


@pytest.mark.parametrize("name", list(ORDER))
def test_an_authors_tree_gives_the_figures_worked_out_by_hand(name: str, tmp_path: Path) -> None:
    splits = build(name, tmp_path)
    chosen = scoring.choose_protocols(runs.config(tmp_path, data__name=name), splits)
    results = evaluate.score_embeddings(*embeddings(splits), splits, BODY, chosen.protocols, seed=0)
    assert [r.result.protocol.name for r in results] == [p.name for p in chosen.protocols]
    found = {r.result.protocol.name: r.result for r in results}
    ids = np.array(splits[0].image_id)
    for protocol, precisions in PRECISIONS[name].items():
        result, scores = found[protocol], found[protocol].scores[0]
        whole = [p for p in precisions if p is not None]
        assert result.figures["mAP"] == pytest.approx(np.mean(whole)), protocol
        taking_part = ids
        if name == "prcc":
            taking_part = ids[splits[0].camera == (2 if "cross" in protocol else 1)]
        elif protocol == "same_clothes":
            taking_part = ids[splits[0].camera <= 3]
        by_name = scores.average_precision[np.argsort(taking_part)]
        np.testing.assert_allclose(by_name, [np.nan if p is None else p for p in precisions], rtol=1e-6)
        assert (scores.counted, sum(scores.dropped.values())) == (len(whole), len(precisions) - len(whole))
    if name == "folder":  # the query's person is in the gallery in another outfit alone
        assert list(chosen.left_out) == ["sc"]
        assert "1 x all removed by different clothes" in chosen.left_out["sc"]
    else:
        assert not chosen.left_out
    if name in ("celeb", "celeb_light"):
        assert found["first_digit"].scores[0].dropped == {"all removed by same camera": 1}
    if name == "ltcc":
        assert found["cc"].scores[0].dropped == {"all removed by same clothes": 1}


def test_single_shot_of_a_built_prcc_by_hand(tmp_path: Path) -> None:
    splits = build("prcc", tmp_path)
    wanted = find_protocols("prcc", ["cross_clothes_single_shot"])
    gallery = splits[1]
    for seed in (0, 1):
        (result,) = evaluate.score_embeddings(*embeddings(splits), splits, BODY, wanted, seed=seed)
        # Whichever image of 001 is drawn, it stands beside 005's: one of the two queries is right at once.
        assert result.result.figures == pytest.approx({"mAP": 0.75, "R-1": 0.5, "R-5": 1, "R-10": 1, "R-20": 1})
        assert result.result.deviations == pytest.approx(dict.fromkeys(result.result.figures, 0.0), abs=1e-12)
        drawn = [draw_single_shot(gallery.identity, seed=seed, draw=draw) for draw in range(10)]
        assert {len(kept) for kept in drawn} == {2}
        assert (result.result.gallery, len(result.result.scores)) == (2, 10)
        first = [scores.first_match.tolist() for scores in result.result.scores]
        of_001 = int(np.flatnonzero(splits[0].identity[splits[0].camera == 2] == 1)[0])
        nearest = [ORDER["prcc"][0] in {gallery.image_id[i] for i in kept} for kept in drawn]
        assert [ranks[of_001] == 1 for ranks in first] == nearest
        assert len(set(nearest)) == 2


# Test images that leave no query a correct one, and what the error must name.
HOPELESS = {
    "celeb": (("2_3_0", "1_10_0"), "none", "no image of this identity in the gallery"),
    "celeb_light": (("1_1_0", "1_10_0"), "first_digit", "rule 'general': 1 x all removed by same camera"),
    "prcc": (("001_C_cropped_rgb001", "005_A_cropped_rgb001"), "cross_clothes_multi_shot", "no image of this"),
    "ltcc": (("005_1_c1_000012", "005_1_c2_000023"), "cc", "rule 'cc': 1 x all removed by same clothes"),
    "vc_clothes": (("0006-03-01-01", "0006-03-01-02"), "cross_clothes", "1 x all removed by same camera"),
    "folder": (("test/q1", "test/g1"), "sc", "rule 'sc': 1 x all removed by different clothes"),
}


@pytest.mark.parametrize("name", list(HOPELESS))
def test_no_valid_query_ends_an_evaluation_with_the_rule_to_blame(name: str, tmp_path: Path) -> None:
    keep, protocol, reason = HOPELESS[name]
    build(name, tmp_path, keep)
    config = runs.config(tmp_path / "data", data__name=name, eval__protocols=(protocol,))
    (tmp_path / "run").mkdir()
    with pytest.raises(InputError) as error:  # before any network is looked for
        runs.run(config, tmp_path / "run", "evaluate")
    assert f"protocol {protocol!r}: no query has a correct gallery image left under rule" in str(error.value)
    assert reason in str(error.value)


def test_published_results_name_their_protocol_and_what_was_left_out(tmp_path: Path, capsys) -> None:
    splits = build("folder", tmp_path)
    config = runs.config(tmp_path, data__name="folder")
    chosen = scoring.choose_protocols(config, splits)
    results = evaluate.score_embeddings(
        *embeddings(splits), splits, BODY, chosen.protocols, seed=0, reranking=Reranking(k1=3, k2=1)
    )
    place = results_files.ResultsFile(tmp_path / "results-on-folder.json", "celeb")
    results_files.publish(config, place, splits[0], results, [], {"student": 7}, chosen.left_out)
    found = json.loads((tmp_path / "results-on-folder.json").read_text())
    assert (found["dataset"], found["trained_on"]) == ("folder", "celeb")
    assert found["checkpoint"] == {"report": "last", "student": 7}
    names = ["general", "general_reranked", "cc", "cc_reranked", "none", "none_reranked"]
    assert [r["protocol"] for r in found["results"]] == names
    assert list(found["left_out"]) == ["sc"]
    assert found["checksums"] == splits[0].metadata["checksums"]
    shown = capsys.readouterr().out
    text = (tmp_path / "results-on-folder.md").read_text()
    for output in (shown, text):
        assert "folder, checkpoint: last, networks trained on celeb" in output
        assert all(any(line.strip("│| ").startswith(name) for line in output.splitlines()) for name in names)
        assert "k1=3, k2=1, lambda=0.3" in output
        assert "sc: left out, no query has a correct gallery image left" in output


def test_the_table_shows_the_deviation_of_single_shot_alone(tmp_path: Path, capsys) -> None:
    splits = build("prcc", tmp_path)
    wanted = find_protocols("prcc", ["cross_clothes_single_shot", "cross_clothes_multi_shot"])
    results = evaluate.score_embeddings(*embeddings(splits), splits, BODY, wanted, seed=0)
    place = results_files.ResultsFile(tmp_path / "results.json", "prcc")
    results_files.publish(runs.config(tmp_path, data__name="prcc"), place, splits[0], results, [], {}, {})
    text = (tmp_path / "results.md").read_text()
    assert "| cross_clothes_single_shot | body | 75.0 ± 0.0 | 50.0 ± 0.0 |" in text
    assert "| cross_clothes_multi_shot | body | 66.7 | 50.0 |" in text
    assert "networks trained on" not in text
    lines = [line for line in capsys.readouterr().out.splitlines() if "cross_clothes_single_shot" in line]
    assert "75.0 ± 0.0" in lines[0]
    single, multi = json.loads((tmp_path / "results.json").read_text())["results"]
    assert single["std"]["mAP"] == pytest.approx(0)
    assert single["draws"] == 10
    assert "std" not in multi
    scalars = results[0].scalars()
    assert scalars["cross_clothes_single_shot/body/mAP"] == pytest.approx(0.75)
    assert scalars["cross_clothes_single_shot/body/R-1_std"] == pytest.approx(0)
    assert not any(name.endswith("_std") for name in results[1].scalars())
