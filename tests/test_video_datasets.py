"""CCVID and MEVID: what their lists say of every frame, wrong rows, and figures by tracklet worked out by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from author_trees import CCVID, MEVID, TRACKLETS, TREES, Photo, write
from data_prep.checking import recognise
from deskpro_jax.data.build import builder, published_sizes
from deskpro_jax.data.build.list_files import list_dataset
from deskpro_jax.data.datasets.find import find_dataset, find_protocols
from deskpro_jax.data.load import dataset
from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.evaluation import evaluate
from deskpro_jax.evaluation.protocols import not_applicable
from deskpro_jax.models.contract import StreamSpec
from video_trees import MEVID_SCALES, ROOTS

VIDEO = ("ccvid", "mevid")
FACE_AND_BODY = evaluate.similarity_of(
    [StreamSpec("face", "face", ("f",), (), 2), StreamSpec("body", "body", ("b",), (), 2)]
)


@pytest.mark.parametrize("root", ["raw", "query_1/session3/raw"])
@pytest.mark.parametrize("name", VIDEO)
def test_frames_have_the_labels_of_their_tracklets(name: str, root: str, tmp_path: Path) -> None:
    raw = tmp_path / root
    write(name, raw)
    for folder in (raw, raw / ROOTS[name]):
        listing = list_dataset(name, folder)
        assert listing.findings == []
        by_path = {Path(s.body).relative_to(raw).as_posix(): s for s in listing.sources}
        labels = {path: Photo(s.split, s.image_id, s.identity, s.camera, s.clothes) for path, s in by_path.items()}
        assert labels == TREES[name]
        assert {path: s.tracklet for path, s in by_path.items()} == TRACKLETS[name]
    if name == "mevid":
        assert {s.tracklet: s.scale for s in listing.sources if s.split != "train"} == MEVID_SCALES
    assert recognise.recognise(raw).spec.name == name


def test_tracklets_without_frames_and_junk_are_noted(tmp_path: Path) -> None:
    write("ccvid", tmp_path)
    (note,) = list_dataset("ccvid", tmp_path).notes
    assert "session2/077_03 holds no photo: a tracklet without frames left out" in note
    assert "gallery.txt, line 4" in note
    write("mevid", tmp_path)
    (tmp_path / "mevid/bbox_test/0000").mkdir()
    (tmp_path / "mevid/bbox_test/0000/0000O000C329T001F00000.jpg").write_bytes(b"x")
    notes = "\n".join(list_dataset("mevid", tmp_path).notes)
    assert "1 tracklets without frames left out, as " in notes
    assert "track_train_info.txt, line 3" in notes
    assert "1 tracklets of person -1 (junk) left out, as " in notes
    assert "track_test_info.txt, line 5" in notes
    assert "1 photos in no list left out, as bbox_test/0000/0000O000C329T001F00000.jpg" in notes


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        ("ccvid", "query.txt", " 77 u1_l0", " 77", "line 2: has 2 fields"),
        ("ccvid", "query.txt", " 77 ", " p77 ", "line 2: the identity is 'p77', expected an integer >= 0"),
        ("ccvid", "query.txt", "session3", "session4", "line 2: the tracklet is 'session4/077_05', expected sessionN"),
        ("ccvid", "query.txt", "077_05", "07705", "line 2: the tracklet is 'session3/07705'"),
        ("ccvid", "query.txt", "session3/077_05", "session2/077_05", "line 2: there is no folder"),
        ("ccvid", "gallery.txt", "session2/077_03", "session1/076_02", "line 4: session1/076_02 is in .* 1 already"),
        ("ccvid", "gallery.txt", "session2/077_03 77 u0_l0", "", "line 4: has 0 fields"),
        ("mevid", "track_train_info.txt", "3 3 201 5 340", "3 3 201 5", "line 2: has 4 fields"),
        ("mevid", "track_train_info.txt", "3 3 201 5 340", "3 3.5 201 5 340", "line 2: the last line is '3.5'"),
        ("mevid", "track_train_info.txt", "3 3 201 5 340", "-1 3 201 5 340", "line 2: the first line is '-1'"),
        ("mevid", "track_train_info.txt", "3 3 201 5 340", "3 3 -2 5 340", "line 2: the person is '-2'"),
        ("mevid", "track_train_info.txt", "3 3 201 5 340", "3 3 nan 5 340", "line 2: the person is 'nan'"),
        ("mevid", "track_train_info.txt", "3 3 201 5 340", "3 3 1_0 5 340", "line 2: the person is '1_0'"),
        ("mevid", "track_train_info.txt", "3 3 201 5 340", "3 4 201 5 340", "line 2: .* several people: 0003, 0201"),
        ("mevid", "track_train_info.txt", "4e0 5.0", "4e0 6.0", "line 4: lines 4 to 6 of train_name.txt, .* 0 to 5"),
        ("mevid", "train_name.txt", "0201O005C340T001F00009.jpg", "x.jpg", "line 4: the file is 'x.jpg'"),
        ("mevid", "query_IDX.txt", "3", "7", "line 2: row 7 of track_test_info.txt, which has rows 0 to 6"),
        ("mevid", "query_IDX.txt", "3", "0", r"line 2: row 0 is in .*query_IDX.txt, line 1 already"),
        ("mevid", "query_IDX.txt", "3", "x", "line 2: the row of track_test_info.txt is 'x'"),
        ("mevid", "test_track_scale.txt", "m\nm\nl\nl", "m\nm\nl\nx", "line 4: the scale is 'x', expected m or l"),
        ("mevid", "test_track_scale.txt", "m\nm\nl\nl", "m\nm\nl", "has 6 rows, track_test_info.txt has 7"),
    ],
)  # fmt: skip
def test_a_wrong_row_is_named_with_file_and_line(
    name: str, file: str, old: str, new: str, message: str, tmp_path: Path
) -> None:
    write(name, tmp_path)
    path = tmp_path / ROOTS[name] / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    separator = ":" if message.startswith("has") else ","
    with pytest.raises(InputError, match=rf"(?s)rows of the lists .* wrong:.*{file}{separator} {message}"):
        list_dataset(name, tmp_path)


def test_a_frame_that_is_listed_and_missing_is_named(tmp_path: Path) -> None:
    write("mevid", tmp_path)
    (tmp_path / "mevid/bbox_train/0201/0201O003C330T004F00001.jpg").unlink()
    (finding,) = list_dataset("mevid", tmp_path).findings
    assert "0201O003C330T004F00001.jpg is missing: " in str(finding)
    assert "track_train_info.txt, line 1 lists it" in str(finding)
    (tmp_path / "mevid/query_IDX.txt").unlink()
    with pytest.raises(MissingInputError, match=r"list .*mevid/query_IDX.txt is missing. Get the dataset"):
        list_dataset("mevid", tmp_path)


def splits_of(name: str, folder: Path) -> tuple[dataset.ReIDSplit, dataset.ReIDSplit]:
    write(name, folder / "raw")
    builder.build(name, folder / "data", folder / "raw", allow_different_size=True, warn=lambda text: None)
    query, gallery = (dataset.load(name, folder / "data", split) for split in ("query", "gallery"))
    return query, gallery


def figures(
    name: str, splits: tuple[dataset.ReIDSplit, dataset.ReIDSplit], angles: dict[int, float], faceless: set[int]
) -> dict[str, list[float]]:
    """Returns the average precisions of the queries by protocol, in the order of their tracklets.

    Args:
        name: of the dataset.
        splits: query and gallery.
        angles: of the tracklets in degrees; the frames of one lie on both sides of it.
        faceless: tracklets without any face.
    """
    rows = []
    for split in splits:
        embeddings = []
        for image_id, tracklet in zip(split.image_id, split.tracklet.tolist(), strict=True):
            members = sorted(i for i, t in zip(split.image_id, split.tracklet, strict=True) if t == tracklet)
            spread = 40 * (members.index(image_id) - (len(members) - 1) / 2)
            angle = np.deg2rad(angles[tracklet] + spread)
            body = [np.cos(angle), np.sin(angle)]
            first = members.index(image_id) == 0  # only the first frame of a tracklet has a face
            face = [1.0, 0.0] if first and tracklet not in faceless else [0.0, 0.0]
            embeddings.append([*face, *body])
        rows.append(np.array(embeddings))
    results = evaluate.score_embeddings(*rows, splits, FACE_AND_BODY, find_protocols(name), seed=0)
    both = {r.result.protocol.name: r.result for r in results if r.stream == "both"}
    chosen = {}
    for protocol, result in both.items():
        queries = dict.fromkeys(splits[0].tracklet.tolist())  # one row for each, by first image
        order = np.argsort(list(queries))
        chosen[protocol] = result.scores[0].average_precision[order].tolist()
    return chosen


def test_ccvid_by_hand(tmp_path: Path) -> None:
    splits = splits_of("ccvid", tmp_path)
    # Query 0 shows person 76 in outfit 0 by camera 1: tracklet 3 is junk by its camera, 2 shows outfit 0, 4 outfit 1.
    # Every tracklet with a face is at 1 by the face; the bodies decide, and tracklet 2 has no face, so that it comes
    # after 4 and 6 in spite of its body: cos 50 = 0.64 against (1 + cos 60) / 2 = 0.75 and (1 + cos 70) / 2 = 0.67.
    angles = {0: 0.0, 1: 0.0, 2: 50.0, 3: 10.0, 4: 60.0, 6: 70.0}
    found = figures("ccvid", splits, angles, faceless={2})
    # Rankings: 3 (junk for query 0), 4, 6, 2.
    assert found["general"] == pytest.approx([(1 / 1 + 2 / 3) / 2, 1 / 3])
    assert found["cc"] == pytest.approx([1 / 1, 1 / 3])
    assert found["sc"][0] == pytest.approx(1 / 2)
    assert np.isnan(found["sc"][1])  # person 77 is in the gallery in another outfit only


def test_mevid_by_hand(tmp_path: Path) -> None:
    splits = splits_of("mevid", tmp_path)
    # Query 0 (person 205, indoors, scale m, outfit 1): 1 is indoors, m, outfit 2; 2 outdoors, l, outfit 1.
    # Query 3 (person 206, outdoors, l, outfit 4): 6 is outdoors, l, outfit 4.
    angles = {0: 0.0, 3: 0.0, 1: 30.0, 2: 10.0, 6: 20.0}
    found = figures("mevid", splits, angles, faceless=set())  # the ranking is 2, 6, 1
    assert found["general"] == pytest.approx([(1 / 1 + 2 / 3) / 2, 1 / 2])
    nan = float("nan")
    for protocol, first, second in (
        ("cc", 1 / 2, nan),
        ("sc", 1 / 1, 1 / 2),
        ("same_location", 1 / 2, 1 / 2),
        ("other_location", 1 / 1, nan),
        ("same_scale", 1 / 2, 1 / 2),
        ("other_scale", 1 / 1, nan),
    ):
        assert found[protocol] == pytest.approx([first, second], nan_ok=True), protocol


def test_without_the_list_of_scales_their_protocols_are_left_out(tmp_path: Path) -> None:
    write("mevid", tmp_path / "raw")
    (tmp_path / "raw/mevid/test_track_scale.txt").unlink()
    assert any("test_track_scale.txt is missing" in note for note in list_dataset("mevid", tmp_path / "raw").notes)
    builder.build("mevid", tmp_path, tmp_path / "raw", allow_different_size=True, warn=lambda text: None)
    labels = [evaluate.labels_of(dataset.load("mevid", tmp_path, split)) for split in ("query", "gallery")]
    reasons = {p.name: not_applicable(p, *labels) for p in find_protocols("mevid")}
    assert {name for name, reason in reasons.items() if reason} == {"same_scale", "other_scale"}
    assert "compares scale, but 2 of 2 query images have scale -1" in str(reasons["same_scale"])


def test_sizes_are_counted_in_tracklets(tmp_path: Path) -> None:
    sizes = {name: [(s.split, s.images, s.identities, s.tracklets) for s in find_dataset(name).sizes] for name in VIDEO}
    assert sizes == {
        "ccvid": [("train", None, 75, 948), ("query", None, None, 834), ("gallery", None, 151, 1074)],
        "mevid": [("train", None, 104, 6337), ("test", None, 53, 1753)],
    }
    write("ccvid", tmp_path)
    lines = published_sizes.differences(find_dataset("ccvid"), list_dataset("ccvid", tmp_path).sources)
    assert lines[0] == (
        "train: 3 tracklets of 2 identities; published 948 tracklets of 75 identities (945 tracklets missing, 73"
        " identities missing)"
    )
    assert "query: 2 tracklets of 2 identities; published 834 tracklets (832 tracklets missing)" in lines
    assert len(CCVID) == 18
    assert len(MEVID) == 13
