"""Published networks are recognised by their names, and every one of their tensors is accounted for."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from deskpro_jax.errors import InputError
from deskpro_jax.models.osnet import BACKBONES
from deskpro_jax.weights import deskpro, export, families, lmbn, load, osnet, table
from deskpro_jax.weights.families import Stream, recognise
from golden_rule import state_dict

GOLDEN = Path(__file__).parent / "golden"
SEED = 3


def manifest(name: str) -> dict:
    return json.loads((GOLDEN / f"{name}_manifest.json").read_text())


@functools.cache
def published(family: str) -> dict[str, np.ndarray]:
    """Returns a state dict of the reference's names and shapes, filled by the golden rule, in float32."""
    shapes = manifest("osnet")[family] if family.startswith("osnet") else manifest(family)
    tensors = state_dict(shapes, SEED)
    return {n: value.astype(np.float32) if value.dtype.kind == "f" else value for n, value in tensors.items()}


def small_stream(role: str, identities: int = 3, attention: str = "none", family: str = "deskpro") -> Stream:
    prefix = deskpro.STREAMS[role] if family == "deskpro" else ""
    return Stream(role, prefix, "x0_25", attention, 8, identities)


@functools.cache
def small(os_streams: str = "abcd", roles: tuple[str, ...] = ("student", "body")) -> dict[str, np.ndarray]:
    """Returns a DeSKPro state dict of the narrowest backbone, trained for five steps."""
    tensors: dict[str, np.ndarray] = {}
    for i, role in enumerate(roles):
        stream = small_stream(role, attention="released" if role == "body" else "none")
        variables = load.initial_variables(stream, os_streams, SEED + i)
        tensors |= export.to_tensors("deskpro", stream, os_streams, variables, 5, {})
    return tensors


def equal(one, other) -> bool:
    same = jax.tree.map(lambda a, b: np.array_equal(a, b), one, other)
    return all(jax.tree.leaves(same))


@pytest.mark.parametrize("name", ["osnet_x1_0", "osnet_x0_25", "osnet_ibn_x1_0"])
def test_osnet_is_recognised_and_loses_its_classifier(name):
    found = recognise(published(name))
    assert found.family == "osnet"
    assert found.streams[0].backbone == name.removeprefix("osnet_")
    assert found.streams[0].identities == 10
    loaded = load.load(found)
    assert loaded.os_streams == "abcd"
    assert loaded.notes == ["the classifier is dropped"]
    variables = loaded.variables["osnet"]
    assert "classifier" not in variables["params"]
    entries = [e for e in osnet.osnet(spec=BACKBONES[name.removeprefix("osnet_")]) if e.path[0] != "classifier"]
    back = table.dump(entries, variables)
    for tensor, value in back.items():
        np.testing.assert_array_equal(value, published(name)[tensor], err_msg=tensor)
    assert set(published(name)) - set(back) == {
        "classifier.weight",
        "classifier.bias",
        *(n for n in published(name) if n.endswith("num_batches_tracked")),
    }


@pytest.mark.parametrize("name", BACKBONES)
def test_every_width_of_osnet_is_recognised(name):
    stream = Stream("osnet", "", name, "none", 512, None)
    tensors = export.to_tensors("osnet", stream, "abcd", load.initial_variables(stream, "abcd", 0), 1, {})
    assert recognise(tensors).streams == (stream,)


def test_lightmbn_is_recognised_and_loaded_whole():
    loaded = load.load(recognise(published("lmbn")))
    assert (loaded.streams[0].identities, loaded.streams[0].feature_dim, loaded.notes) == (10, 512, [])
    back = table.dump(lmbn.light_mbn(lmbn.PUBLISHED, streams="abcd"), loaded.variables[""])
    assert set(back) == {n for n in published("lmbn") if not n.endswith("num_batches_tracked")}
    assert all(np.array_equal(value, published("lmbn")[name]) for name, value in back.items())


def test_deskpro_is_recognised_with_its_three_networks():
    found = recognise(published("deskpro"))
    assert found.family == "deskpro"
    assert {stream.role: stream.attention for stream in found.streams} == {
        "teacher": "none",
        "student": "none",
        "body": "released",
    }
    for os_streams in ("abcd", "aacd"):
        loaded = load.load(found, os_streams=os_streams)
        for role, variables in loaded.variables.items():
            entries = deskpro.stream(role, streams=os_streams, attention_form="released")
            module = "body_stream" if role == "body" else "face_stream"
            back = table.dump(entries, {name: {module: tree} for name, tree in variables.items()})
            assert all(np.array_equal(value, published("deskpro")[name]) for name, value in back.items())


@pytest.mark.parametrize("roles", [("teacher",), ("body",), ("student", "teacher")])
def test_a_part_of_deskpro_is_enough(roles):
    loaded = load.load(recognise(small(roles=roles)))
    assert set(loaded.variables) == set(roles)


@pytest.mark.parametrize("wrapper", ["module.", "model.", "model.net.", "_orig_mod.module."])
@pytest.mark.parametrize("name", ["osnet_x0_25", "deskpro", "lmbn"])
def test_wrappers_around_names_do_not_matter(wrapper, name):
    tensors = small() if name == "deskpro" else published(name)
    wrapped = recognise({wrapper + n: value for n, value in tensors.items()})
    assert wrapped.streams == recognise(tensors).streams
    assert list(wrapped.tensors) == list(tensors)


def test_a_lone_stream_without_its_prefix_is_recognised():
    tensors = {n.removeprefix("face_net."): value for n, value in small(roles=("teacher",)).items()}
    found = recognise(tensors)
    assert (found.family, found.streams[0].role, found.streams[0].backbone) == ("deskpro", "", "x0_25")
    assert equal(load.load(found).variables[""], load.load(recognise(small(roles=("teacher",)))).variables["teacher"])


def test_unknown_and_ambiguous_names_are_refused():
    with pytest.raises(InputError, match=r"no known family.*OSNet.*LightMBN.*DeSKPro"):
        recognise({"layer1.0.conv1.weight": np.zeros((4, 4, 3, 3))})
    with pytest.raises(InputError, match="no known family"):
        recognise({f"encoder.{n}": value for n, value in published("osnet_x0_25").items()})
    twice = {f"{w}{n}": value for w in ("model.", "module.") for n, value in published("osnet_x0_25").items()}
    with pytest.raises(InputError, match="expected one"):
        recognise(twice)
    wide = dict(published("osnet_x0_25")) | {"conv1.conv.weight": np.zeros((20, 3, 7, 7), np.float32)}
    with pytest.raises(InputError, match=r"20 channels.*x0_25 \(16\)"):
        recognise(wide)
    with pytest.raises(InputError, match=r"classifier.weight has shape \(\)"):
        recognise(dict(published("osnet_x0_25")) | {"classifier.weight": np.zeros(())})


def test_every_misfit_is_listed_with_both_shapes():
    tensors = dict(small())
    tensors["nocloth_net.spatial_attn.conv2.weight"] = np.zeros((2, 96, 1, 1), np.float32)
    tensors["lr_face_net.backbone.0.conv.weight"] = np.zeros((16, 3, 7, 7, 1), np.float32)
    tensors["lr_face_net.extra.weight"] = np.zeros((5, 4), np.float32)
    tensors["lr_face_net.backbone.2.0.conv1.bn.weight"] = np.zeros(16, np.int64)
    del tensors["nocloth_net.backbone.2.1.gate.fc1.bias"]
    with pytest.raises(InputError) as error:
        load.load(recognise(tensors))
    lines = str(error.value).splitlines()
    assert "(5 tensors)" in lines[0]
    expected = {
        "nocloth_net.spatial_attn.conv2.weight": ("(2, 96, 1, 1)", "(1, 96, 1, 1)"),
        "lr_face_net.backbone.0.conv.weight": ("(16, 3, 7, 7, 1)", "(16, 3, 7, 7)"),
        "lr_face_net.extra.weight": ("(5, 4)", "no such tensor"),
        "lr_face_net.backbone.2.0.conv1.bn.weight": ("int64", "floating-point"),
        "nocloth_net.backbone.2.1.gate.fc1.bias": ("not in the file", "(1,)"),
    }
    for name, words in expected.items():
        (line,) = (line for line in lines if name in line)
        assert all(word in line for word in words), line


def test_dont_load_excuses_what_it_matches_and_nothing_else():
    tensors = dict(small())
    tensors["nocloth_net.spatial_attn.conv2.weight"] = np.zeros((2, 96, 1, 1), np.float32)
    tensors["lr_face_net.extra.weight"] = np.zeros((5, 4), np.float32)
    with pytest.raises(InputError, match=r"\(1 tensors\):\n.*lr_face_net.extra"):
        load.load(recognise(tensors), dont_load=[r"nocloth_net\.spatial_attn\..*"])
    loaded = load.load(recognise(tensors), dont_load=[r"nocloth_net\.spatial_attn\..*", r".*\.extra\.weight"], seed=7)
    attention = loaded.variables["body"]["params"]["attention"]
    fresh = load.initial_variables(small_stream("body", attention="released"), "abcd", 7)["params"]["attention"]
    assert equal(attention, fresh)
    whole = load.load(recognise(small())).variables["body"]["params"]
    assert not equal(attention, whole["attention"])
    assert equal(loaded.variables["body"]["params"]["trunk"], whole["trunk"])
    assert loaded.notes == ["3 tensors left out as dont_load says"]
    with pytest.raises(InputError, match="not a regular expression"):
        load.load(recognise(tensors), dont_load=["("])


def test_the_second_name_of_a_branch_must_agree_and_may_stand_alone():
    name = "nocloth_net.branches.1.backbone2.2.conv.weight"
    tensors = dict(small())
    tensors[name] = tensors[name] + 1
    with pytest.raises(InputError, match=r"part_branch\.backbone2\.2\.conv\.weight.*(differs|same tensor)"):
        load.load(recognise(tensors))
    without = {n: value for n, value in small().items() if ".branches." not in n}
    only = {n: value for n, value in small().items() if families.canonical(n) != n or ".backbone2." not in n}
    assert len(without) < len(small())
    assert len(only) < len(small())
    expected = load.load(recognise(small())).variables
    assert equal(load.load(recognise(without)).variables, expected)
    assert equal(load.load(recognise(only)).variables, expected)


@pytest.mark.parametrize("trained", ["abcd", "aacd"])
def test_the_streams_a_file_was_trained_with_are_recognised_and_held_to(trained):
    found = recognise(small(trained))
    assert found.os_streams == trained
    assert load.load(found).os_streams == trained
    other = "abcd" if trained == "aacd" else "aacd"
    with pytest.raises(InputError, match=f"are of {trained}.*the model runs {other}: set streams"):
        load.load(found, os_streams=other)


def test_counters_decide_the_streams():
    def with_counters(a: int, b: int) -> str | None:
        tensors = dict(small())
        for name in tensors:
            if name.endswith("conv2a.bn.num_batches_tracked"):
                tensors[name] = np.asarray(a)
            elif "conv2b." in name and name.endswith("num_batches_tracked"):
                tensors[name] = np.asarray(b)
        return recognise(tensors).os_streams

    assert with_counters(10, 0) == "aacd"
    assert with_counters(10, 10) == "abcd"
    assert with_counters(30, 10) == "aacd"  # 10 of pretraining, then twice 10
    assert with_counters(0, 0) is None


def test_undecided_streams_must_be_given_for_deskpro_alone():
    found = recognise(published("deskpro"))
    assert found.os_streams is None
    with pytest.raises(InputError, match="give --streams aacd"):
        load.load(found)
    assert load.load(recognise(published("lmbn"))).os_streams == "abcd"
    with pytest.raises(InputError, match="are of abcd"):
        load.load(recognise(published("lmbn")), os_streams="aacd")


def test_networks_trained_with_different_streams_are_refused():
    mixed = {n: v for n, v in small("aacd").items() if n.startswith("lr_")}
    mixed |= {n: v for n, v in small("abcd").items() if n.startswith("nocloth")}
    with pytest.raises(InputError, match="mixes networks"):
        recognise(mixed)


def test_another_number_of_identities_draws_the_classifiers_anew_and_says_so():
    loaded = load.load(recognise(small()), identities=5)
    same = load.load(recognise(small()), identities=3)
    assert same.notes == []
    for role in ("student", "body"):
        params, before = loaded.variables[role]["params"], same.variables[role]["params"]
        assert params["classifier"]["kernel"].shape == (7, 8, 5)
        assert 0 < np.std(params["classifier"]["kernel"]) < 0.01
        assert equal(params["trunk"], before["trunk"])
        assert equal(params["neck"], before["neck"])
    assert [note for note in loaded.notes if "classifiers of 3 identities dropped, 7 of 5 drawn anew" in note] == (
        loaded.notes
    )
    assert len(loaded.notes) == 2


@pytest.mark.parametrize("os_streams", ["abcd", "aacd"])
def test_osnet_starts_the_trunk_and_all_branches_of_a_stream(os_streams):
    stream = small_stream("body", attention="paper")
    before = load.initial_variables(stream, os_streams, 0)
    found = recognise(published("osnet_x0_25"))
    after, notes = load.initialise(found, "body", before, os_streams=os_streams, attention="paper")
    assert jax.tree.structure(after) == jax.tree.structure(before)
    whole = load.load(found).variables["osnet"]["params"]
    assert equal(after["params"]["trunk"]["block2_1"]["conv1"], whole["trunk"]["block2_1"]["conv1"])
    for i in range(3):
        kernel = after["params"]["branches"]["conv5"]["conv"]["kernel"][i]
        assert np.array_equal(kernel, whole["tail"]["conv5"]["conv"]["kernel"])
    for part in ("attention", "drop_block", "shared", "reduction", "neck", "classifier"):
        assert equal(after["params"][part], before["params"][part]), part
    assert any("initial values stay" in note and "drop_block" in note for note in notes)


def test_deskpro_and_lightmbn_start_a_stream_of_other_identities():
    stream = small_stream("student", identities=6)
    before = load.initial_variables(stream, "abcd", 0)
    found = recognise(small())
    after, notes = load.initialise(found, "student", before, os_streams="abcd", attention="none")
    source = load.load(found).variables["student"]
    assert equal(after["params"]["classifier"], before["params"]["classifier"])
    assert equal(after["batch_stats"], source["batch_stats"])
    assert equal(after["params"]["drop_block"], source["params"]["drop_block"])
    assert "classifiers of 3 identities dropped, 7 of 6 drawn anew" in notes
    taught, notes = load.initialise(found, "teacher", before, os_streams="abcd", attention="none")
    assert equal(taught["params"], after["params"])  # where there is no teacher, the student's network starts one
    assert "the file has no teacher: its face student is read" in notes
    body = {name: value for name, value in small().items() if name.startswith("nocloth_net.")}
    with pytest.raises(InputError, match="holds no teacher network, only body"):
        load.initialise(recognise(body), "teacher", before, os_streams="abcd", attention="none")
    with pytest.raises(InputError, match="are of abcd"):
        load.initialise(found, "student", before, os_streams="aacd", attention="none")
    lone = export.to_tensors(
        "lmbn",
        small_stream("body", family="lmbn"),
        "abcd",
        load.initial_variables(small_stream("body"), "abcd", 4),
        1,
        {},
    )
    after, _ = load.initialise(recognise(lone), "body", before, os_streams="abcd", attention="none")
    expected = load.load(recognise(lone)).variables[""]
    assert equal(after["params"]["branches"], expected["params"]["branches"])


def test_a_stream_of_another_width_is_refused():
    before = load.initial_variables(Stream("body", "", "x0_5", "none", 8, 3), "abcd", 0)
    found = recognise(published("osnet_x0_25"))
    with pytest.raises(InputError, match=r"conv1.conv.weight: shape \(16, 3, 7, 7\), the model has \(32, 3, 7, 7\)"):
        load.initialise(found, "body", before, os_streams="abcd", attention="none")
