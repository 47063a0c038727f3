"""Weights files of every wrapping are read, and no file can do anything but hold tensors."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from deskpro_jax.errors import InputError, MissingInputError
from deskpro_jax.weights.read import read_file, read_tensors
from torch_files import (
    ORDERED,
    Pickled,
    Raw,
    save,
    tensor_opcodes,
    torch_legacy,
    torch_zip,
    written_by_torch,
    zip_bytes,
)

# The folder with published weights, where there is one.
RETINAFACE = Path(os.environ.get("DESKPRO_WEIGHTS", "weights")) / "retinaface_mobilenet0.25_Final.pth"
WRITERS = {"zip": torch_zip, "legacy": torch_legacy}


def tensors() -> OrderedDict[str, np.ndarray]:
    return OrderedDict(
        {
            "conv.weight": np.arange(24, dtype=np.float32).reshape(2, 3, 2, 2),
            "half": np.asarray([0.5, -2.0], np.float16),
            "brain": np.asarray([1.5, -3.0], jnp.bfloat16),
            "double": np.asarray([[1.0], [2.0]]),
            "bn.num_batches_tracked": np.asarray(7),
        }
    )


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def refuse(path: Path, *words: str) -> str:
    """Asserts that reading says all words, the file's name among them, and returns the message."""
    with pytest.raises(InputError) as error:
        read_tensors(path)
    message = str(error.value)
    for word in (str(path), *words):
        assert word in message
    return message


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_file_that_pytorch_wrote_is_read(form, tmp_path):
    path = save(tmp_path / "real.pth", written_by_torch(form))
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    expected = {"w": matrix, "t": matrix.T, "h": np.asarray([0.5, -2.0], np.float16)}
    assert_same(read_tensors(path), expected | {"b": np.asarray([1.5, -3.0], jnp.bfloat16), "n": np.asarray(7)})


@pytest.mark.skipif(not RETINAFACE.exists(), reason="no published RetinaFace weights in DESKPRO_WEIGHTS")
def test_a_published_file_of_2020_is_read():
    found = read_file(RETINAFACE)
    assert found.format == "PyTorch legacy pickle"
    assert len(found.tensors) == 300
    assert found.tensors["body.stage1.0.0.weight"].shape == (8, 3, 3, 3)
    assert all(np.isfinite(value).all() for value in found.tensors.values())


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda sd: sd,
        lambda sd: dict(sd),
        lambda sd: {"state_dict": sd, "epoch": 3, "rank1": 0.5},
        lambda sd: {"model": sd, "optimizer": {"state": {0: {"m": np.ones(3)}}, "param_groups": [{"lr": 0.1}]}},
        lambda sd: {"net": {"state_dict": sd}, "best": None},
        lambda sd: {"whatever": sd},
    ],
    ids=["ordered", "plain", "state_dict", "model and optimizer", "nested", "odd name"],
)
def test_tensors_come_out_of_every_wrapping(form, wrap, tmp_path):
    assert_same(read_tensors(save(tmp_path / "w.pth", WRITERS[form](wrap(tensors())))), tensors())


@pytest.mark.parametrize("form", WRITERS)
def test_a_classifier_that_is_kept_beside_its_network_is_read_with_it(form, tmp_path):
    classifier = {"classifier.weight": np.ones((4, 3), np.float32)}
    optimiser = {"state": {0: {"m": np.ones(3)}}, "param_groups": [{"lr": 0.1}]}
    tree = {"model_state_dict": tensors(), "classifier_state_dict": classifier, "optimizer_state_dict": optimiser}
    expected = tensors() | {"classifier.classifier.weight": classifier["classifier.weight"]}
    assert_same(read_tensors(save(tmp_path / "w.pth", WRITERS[form](tree))), expected)


def test_a_lightning_checkpoint_is_read_with_placeholders_for_its_settings(tmp_path):
    namespace = Raw(b"cargparse\nNamespace\n)\x81}X\x02\x00\x00\x00lrG?\xb9\x99\x99\x99\x99\x99\x9asb")
    callback = Raw(b"cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n")
    score = Raw(
        b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00f8K\x00K\x01tRC\x08"
        + struct.pack("<d", 0.5)
        + b"tR"
    )
    tree = {
        "epoch": 3,
        "pytorch-lightning_version": "1.9.0",
        "callbacks": Raw(b"}" + callback + b"}X\x01\x00\x00\x00aK\x01ss"),
        "hyper_parameters": namespace,
        "mAP": score,
        "state_dict": tensors(),
    }
    assert_same(read_tensors(save(tmp_path / "last.ckpt", torch_zip(tree))), tensors())


def test_safetensors_are_read_with_their_metadata(tmp_path):
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(dict(tensors()), path, metadata={"format": "pt"})
    found = read_file(path)
    assert found.metadata == {"format": "pt"}
    assert_same({name: found.tensors[name] for name in tensors()}, tensors())
    assert_same(dict(sorted(read_tensors(path.rename(tmp_path / "w.bin")).items())), dict(sorted(tensors().items())))


def test_no_torch_is_needed(tmp_path):
    path = save(tmp_path / "real.pth", written_by_torch("zip"))
    code = (
        "import sys; sys.modules['torch'] = None; from deskpro_jax.weights.read import read_tensors;"
        f"print(sorted(read_tensors({str(path)!r})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['b', 'h', 'n', 't', 'w']"


def command(marker: Path) -> bytes:
    return Pickled(f"touch {marker}").data[2:-1]


HOSTILE = {
    "reduce": (lambda c: b"cos\nsystem\n" + c + b"\x85R.", "os.system"),
    "stack global": (lambda c: b"X\x05\x00\x00\x00posixX\x06\x00\x00\x00system\x93" + c + b"\x85R.", "posix.system"),
    "inst": (lambda c: b"(" + c + b"ios\nsystem\n.", "os.system"),
    "obj": (lambda c: b"(cos\nsystem\n" + c + b"o.", "os.system"),
    "newobj": (lambda c: b"csubprocess\nPopen\n" + c + b"\x85\x81.", "subprocess.Popen"),
    "newobj_ex": (lambda c: b"csubprocess\nPopen\n" + c + b"\x85}\x92.", "subprocess.Popen"),
    "eval": (lambda c: b"cbuiltins\neval\n" + c + b"\x85R.", "builtins.eval"),
    "getattr": (lambda c: b"cbuiltins\ngetattr\n(ccollections\nOrderedDict\n" + c + b"tR.", "builtins.getattr"),
    "dotted": (lambda c: b"ccollections\nOrderedDict.__init__\n" + c + b"\x85R.", "OrderedDict.__init__"),
    "in a value": (lambda c: b"}X\x01\x00\x00\x00wcos\nsystem\n" + c + b"\x85Rs.", "os.system"),
    "as a hook": (
        lambda c: b"ctorch._utils\n_rebuild_tensor_v2\n(NK\x00))\x89cos\nsystem\n" + c + b"\x85RtR.",
        "os.system",
    ),
    "call of a result": (lambda c: ORDERED + b")R" + c + b"\x85R.", "OrderedMapping"),
    "call of text": (lambda c: c + b")R.", "calls a str"),
    "tensor of nothing": (lambda c: b"ctorch._utils\n_rebuild_tensor_v2\n(" + c + b"K\x00))\x89NtR.", "on a str"),
    "too many arguments": (lambda c: b"ctorch._utils\n_rebuild_tensor_v2\n(" + 9 * c + b"tR.", "other arguments"),
    "ordered of text": (lambda c: ORDERED + c + b"\x85R.", "OrderedDict from something other"),
    "build a function": (
        lambda c: b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x0c\x00\x00\x00__defaults__" + c + b"\x85s\x86b.",
        "sets attributes of torch._utils._rebuild_tensor_v2",
    ),
    "build a class": (lambda c: ORDERED + b"}X\x03\x00\x00\x00get" + c + b"sb.", "sets attributes of collections.Ord"),
    "items of a class": (lambda c: ORDERED + c + c + b"s.", "sets items of collections.OrderedDict"),
    "append to a class": (lambda c: ORDERED + c + b"a.", "appends to collections.OrderedDict"),
    "persistent text": (lambda c: b"P0\n.", "PERSID"),
    "persistent object": (lambda c: c + b"Q.", "outside it"),
    "persistent code": (lambda c: b"(X\x06\x00\x00\x00modulecos\nsystem\ntQ.", "os.system"),
    "storage of no type": (lambda c: Pickled(("storage", Raw(b"ctorch\nSize\n"), "0", "cpu", 4)).data[2:-1] + b"Q.",
                           "not a plain storage"),
    "extension": (lambda c: b"\x82\x01.", "EXT1"),
    "buffer": (lambda c: b"\x97.", "NEXT_BUFFER"),
    "empty stack": (lambda c: b"R.", "damaged"),
    "no mark": (lambda c: b"K\x01t.", "damaged"),
    "no such memo": (lambda c: b"h\x07.", "damaged"),
    "no opcode": (lambda c: b"\xff.", "damaged"),
    "ends early": (lambda c: b"}", "damaged"),
    "long text cut short": (lambda c: b"X\xff\xff\xff\x7fa.", "damaged"),
}  # fmt: skip


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("attack", HOSTILE)
def test_a_hostile_pickle_is_refused_by_name_and_does_nothing(attack, form, tmp_path):
    make, word = HOSTILE[attack]
    body = b"\x80\x02" + make(command(tmp_path / "ran"))
    if form == "zip":
        data = zip_bytes(body, {"0": b"\0" * 16})
    else:
        whole = torch_legacy({})
        data = whole.replace(Pickled({}).data + Pickled([]).data, body + Pickled([]).data)
        assert body in data
    refuse(save(tmp_path / "bad.pth", data), word)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("offset", "shape", "strides", "word"),
    [
        (0, (1000,), (1,), "does not fit its storage of 4"),
        (1, (2, 2), (2, 1), "does not fit its storage of 4"),
        (0, (2, 2), (3, 1), "does not fit its storage of 4"),
        (0, (2**30, 2**30), (0, 0), "does not fit its storage of 4"),
        (2**31, (1,), (1,), "does not fit its storage of 4"),
        (0, (2**62, 2**62), (1, 1), "not up to"),
        (0, (-4,), (1,), "not up to"),
        (0, (4,), (-1,), "not up to"),
        (-1, (4,), (1,), "offset"),
        (0, (2, 2), (1,), "strides"),
        (0, (1,) * 40, (1,) * 40, "not up to 32"),
        (0, (0, 2**61, 2**61), (1, 1, 1), "cannot be made"),
        (0, ("4",), (1,), "not up to"),
        (0, (True,), (1,), "not up to"),
    ],
)
def test_a_tensor_larger_than_its_storage_is_refused(offset, shape, strides, word, tmp_path):
    tensor = tensor_opcodes("0", "FloatStorage", 4, offset, shape, strides)
    refuse(save(tmp_path / "bad.pth", zip_bytes(Pickled({"w": tensor}).data, {"0": b"\0" * 16})), word)


def test_a_storage_that_claims_more_than_its_entry_holds_is_refused(tmp_path):
    tensor = tensor_opcodes("0", "FloatStorage", 2**40, 0, (4,), (1,))
    refuse(
        save(tmp_path / "bad.pth", zip_bytes(Pickled({"w": tensor}).data, {"0": b"\0" * 16})), "should have", "has 16"
    )


def test_lists_copied_again_and_again_are_refused(tmp_path):
    pairs = b"](" + b"K\x00K\x00\x86" * 1000 + b"eq\x00"
    data = b"\x80\x02" + pairs + (ORDERED + b"h\x00\x85R0") * 1001 + b"."
    refuse(save(tmp_path / "bad.pth", zip_bytes(data, {})), "copies more than")


def test_deep_nesting_is_no_stack_overflow(tmp_path):
    deep = b")" + b"\x85" * 200_000
    path = save(tmp_path / "deep.pth", zip_bytes(b"\x80\x02}(" + deep + b"K\x01u.", {}))
    refuse(path, "no state dict")
    path = save(tmp_path / "dicts.pth", zip_bytes(b"\x80\x02" + b"}K\x00" * 100_000 + b"N" + b"s" * 100_000 + b".", {}))
    refuse(path, "no state dict")


def test_a_mapping_held_a_thousand_times_at_each_depth_is_searched_once(tmp_path):
    level = b"}(" + b"".join(struct.pack("<BiB", 0x4A, i, ord("N")) for i in range(1000)) + b"uq\x00"
    for at in range(1, 6):
        items = b"".join(struct.pack("<BiBB", 0x4A, i, ord("h"), at - 1) for i in range(1000))
        level += b"0}(" + items + b"u" + bytes([ord("q"), at])
    path = save(tmp_path / "laughs.pth", zip_bytes(b"\x80\x02" + level + b".", {}))
    refuse(path, "no state dict")


def test_no_opcode_makes_memory_that_the_file_does_not_hold(tmp_path):
    for opcodes in (b"Nr\xff\xff\xff\xff", b"\x96" + b"\xff" * 8, b"\x8e" + b"\xff" * 8, b"\x95" + b"\xff" * 8):
        refuse(save(tmp_path / "bad.pth", zip_bytes(b"\x80\x05" + opcodes + b".", {})))


def test_numbers_of_millions_of_digits_are_no_work(tmp_path):
    number = b"\x8b" + struct.pack("<i", 1 << 20) + b"\x7f" * (1 << 20)
    refuse(save(tmp_path / "bytes.pth", zip_bytes(b"\x80\x02" + number + b".", {})), "expected a state dict")
    refuse(save(tmp_path / "text.pth", zip_bytes(b"\x80\x02L" + b"9" * (1 << 20) + b"L\n.", {})), "damaged")


def test_deep_members_of_a_set_are_no_stack_overflow(tmp_path):
    deep = b"\x8f(" + b")" + b"\x85" * 200_000 + b"\x90"
    refuse(save(tmp_path / "set.pth", zip_bytes(b"\x80\x04" + deep + b".", {})), "expected a state dict")


@pytest.mark.parametrize("name", ["archive/data/../../etc", "/etc/passwd", "archive\\data"])
def test_entries_that_point_outside_are_refused(name, tmp_path):
    whole = zip_bytes(Pickled({"w": np.ones(4)}).data, {"0": np.ones(4).tobytes()}, {name: b"x"})
    refuse(save(tmp_path / "bad.pth", whole), "points outside")


def test_a_storage_key_is_no_path(tmp_path):
    tensor = tensor_opcodes("../../data.pkl", "ByteStorage", 4, 0, (4,), (1,))
    refuse(save(tmp_path / "bad.pth", zip_bytes(Pickled({"w": tensor}).data, {})), "which is not in it")


def archive_of(*entries: tuple[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w", compression) as archive:
            for name, data in entries:
                archive.writestr(name, data)
        return buffer.getvalue()


def test_zip_bombs_are_refused_unopened(tmp_path):
    pickle = Pickled({"w": tensor_opcodes("0", "FloatStorage", 4, 0, (4,), (1,))}).data
    bomb = archive_of(("a/data.pkl", pickle), ("a/data/0", b"\0" * (8 << 20)), compression=zipfile.ZIP_DEFLATED)
    refuse(save(tmp_path / "deflated.pth", bomb), "is compressed")
    twice = bytearray(archive_of(("a/data.pkl", pickle), ("a/data/0", b"\0" * 4096), ("a/data/1", b"\0" * 4096)))
    # Both entries of the directory point at the same bytes, each claiming the whole file.
    for at in (i for i in range(len(twice)) if twice[i : i + 4] == b"PK\x01\x02"):
        struct.pack_into("<II", twice, at + 20, 8000, 8000)
    refuse(save(tmp_path / "overlap.pth", bytes(twice)), "claim")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_odd_archives_are_named(tmp_path):
    refuse(save(tmp_path / "photos.zip", archive_of(("a.jpg", b"x"))), "without data.pkl")
    refuse(save(tmp_path / "script.pt", archive_of(("a/data.pkl", b"."), ("a/constants.pkl", b"."))), "TorchScript")
    refuse(save(tmp_path / "twice.pt", archive_of(("a/data.pkl", b"."), ("a/data.pkl", b"."))), "twice")
    refuse(save(tmp_path / "order.pt", archive_of(("a/data.pkl", b"."), ("a/byteorder", b"middle"))), "byte order")


def test_big_endian_archives_are_read(tmp_path):
    tensor = tensor_opcodes("0", "FloatStorage", 2, 0, (2,), (1,))
    pickle = Pickled({"w": tensor, "alias": tensor}).data
    data = archive_of(
        ("a/data.pkl", pickle), ("a/byteorder", b"big"), ("a/data/0", np.asarray([1, 2], ">f4").tobytes())
    )
    tensors = read_tensors(save(tmp_path / "big.pt", data))
    np.testing.assert_array_equal(tensors["w"], np.asarray([1, 2], np.float32))
    assert np.shares_memory(tensors["w"], tensors["alias"])


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_download_cut_short_anywhere_is_refused(form, tmp_path):
    data = safetensors.numpy.save(dict(tensors())) if form == "safetensors" else written_by_torch(form)
    for length in {1, 9, 30, len(data) // 3, len(data) // 2, len(data) - 5, len(data) - 1}:
        path = save(tmp_path / "part.bin", data[:length])
        with pytest.raises(InputError, match=r"part\.bin") as error:
            read_tensors(path)
        assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_random_damage_never_ends_in_another_error(form, tmp_path):
    whole = safetensors.numpy.save(dict(tensors())) if form == "safetensors" else written_by_torch(form)
    rng, path, refused = np.random.default_rng(0), tmp_path / "damaged.bin", 0
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(0, len(data) - 40, rng.integers(1, 5)):  # up to four deletions leave it in range
            if rng.random() < 0.7:
                data[at] = rng.integers(256)
            else:
                del data[at : at + rng.integers(1, 8)]
        try:
            read_tensors(save(path, bytes(data)))
        except InputError:
            refused += 1
    assert refused > 100


def test_a_flipped_byte_in_a_zip_is_noticed(tmp_path):
    data = bytearray(torch_zip({"w": np.ones(100, np.float32)}))
    data[data.index(np.ones(4, np.float32).tobytes()) + 5] ^= 1
    refuse(save(tmp_path / "flipped.pth", bytes(data)), "CRC", "fetch the file again")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "is empty"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        (b"\n  <html>quota exceeded</html>", "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS"),
        (b"\x1f\x8b\x08\x00rest", "unpack"),
        (b"\0" * 4096, "zeros"),
        (b"\x89PNG\r\n\x1a\n", "no weights file"),
        (b"\x80\x04\x95\x05\x00\x00\x00\x00\x00\x00\x00]\x94.", "that torch.save did not write"),
        (struct.pack("<Q", 20) + b'{"w": "hello"}      ', "safetensors"),
    ],
)
def test_what_is_no_weights_file_is_named(data, word, tmp_path):
    refuse(save(tmp_path / "model.pth", data), word)


def test_what_holds_no_state_dict_is_named(tmp_path):
    refuse(save(tmp_path / "list.pth", torch_zip([np.ones(2)])), "holds a list")
    refuse(save(tmp_path / "one.pth", torch_zip(np.ones(2))), "one tensor")
    refuse(save(tmp_path / "none.pth", torch_zip({"epoch": 3, "lr": 0.1})), "'epoch', 'lr'")
    refuse(save(tmp_path / "numbers.pth", torch_zip({1: np.ones(2)})), "no name")
    two = {"generator": {"w": np.ones(2)}, "discriminator": {"w": np.ones(2)}}
    refuse(save(tmp_path / "two.pth", torch_zip(two)), "'generator', 'discriminator'")


def test_a_whole_pickled_model_is_refused_with_advice(tmp_path):
    model = Raw(b"ctorchreid.models.osnet\nOSNet\n)\x81")
    message = refuse(save(tmp_path / "model.pth", torch_zip({"model": model})), "torchreid.models.osnet.OSNet")
    assert "state_dict()" in message


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(MissingInputError, match=r"nothing\.pth"):
        read_tensors(tmp_path / "nothing.pth")
    refuse(tmp_path, "folder")


def weights_of(value: float) -> OrderedDict[str, np.ndarray]:
    return OrderedDict(w=np.full(3, value, np.float32))


BOTH = {
    "state_dict and state_dict_ema": lambda plain, ema: {"state_dict": plain, "state_dict_ema": ema, "epoch": 3},
    "model and ema": lambda plain, ema: {"ema": ema, "model": plain},
    "model and model_ema": lambda plain, ema: {"model": plain, "model_ema": ema, "optimizer": {"state": {}}},
    "params and params_ema": lambda plain, ema: {"params_ema": ema, "params": plain},
    "odd names": lambda plain, ema: {"student": plain, "EMA": {"decay": 0.9, "state_dict": ema}},
    "one deeper": lambda plain, ema: {"checkpoint": {"net": {"state_dict": plain}, "net_ema": ema}},
}


@pytest.mark.parametrize("form", WRITERS)
@pytest.mark.parametrize("wrap", BOTH.values(), ids=BOTH)
def test_plain_weights_are_read_beside_averaged_ones_unless_those_are_asked_for(wrap, form, tmp_path, caplog):
    path = save(tmp_path / "w.pth", WRITERS[form](wrap(weights_of(1), weights_of(2))))
    for choice, value, said in (("plain", 1, 0), ("ema", 2, 0), (None, 1, 1)):
        caplog.clear()
        assert_same(read_file(path, choice).tensors, weights_of(value))
        assert len(caplog.records) == said
    assert "the plain ones are read; --weights ema takes the others" in caplog.text


def test_averaged_weights_alone_are_read_and_that_is_said(tmp_path, caplog):
    path = save(tmp_path / "w.pth", torch_zip({"ema": weights_of(2), "epoch": 3}))
    assert_same(read_tensors(path), weights_of(2))
    assert "EMA weights only" in caplog.text


@pytest.mark.parametrize("wrap", [lambda sd: sd, lambda sd: {"model": sd, "schema": sd, "cinema": {"w": np.ones(2)}}])
def test_averaged_weights_that_are_not_there_are_an_error(wrap, tmp_path, caplog):
    path = save(tmp_path / "w.pth", torch_zip(wrap(weights_of(1))))
    assert_same(read_tensors(path), weights_of(1))
    assert not caplog.records
    with pytest.raises(InputError, match=r"holds no EMA weights .*leave out --weights"):
        read_file(path, "ema")
    safetensors.numpy.save_file(dict(weights_of(1)), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="leave out --weights"):
        read_file(tmp_path / "w.safetensors", "ema")


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        (
            {"state": {0: {"exp_avg": np.ones(3)}}, "param_groups": [{"lr": 0.1}]},
            "state of an optimiser and no weights",
        ),
        ({"optimizer": {"state": {0: {"m": np.ones(3)}}, "param_groups": []}, "epoch": 3}, "state of an optimiser"),
        (
            {"cfg": Raw(b"cyacs.config\nCfgNode\n)\x81"), "model": weights_of(1)},
            "holds a configuration (yacs.config.CfgNode)",
        ),
        ({"cfg": Raw(b"cmy.settings\nTrainConfig\n)\x81")}, "holds a configuration (my.settings.TrainConfig)"),
        (Raw(b"ctorchvision.models.resnet\nResNet\n)\x81"), "as a model that was saved whole"),
        (Raw(b"ctorch.nn.parallel.data_parallel\nDataParallel\n)\x81"), "as a model that was saved whole"),
        (Raw(b"c__main__\nNet\n)\x81"), "the class __main__.Net, as a model that was saved whole"),
    ],
)
def test_what_is_beside_or_in_place_of_weights_is_named(tree, words, tmp_path):
    message = refuse(save(tmp_path / "odd.pth", torch_zip(tree)), words)
    assert "state_dict" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"model_final.pth\n", "names a checkpoint, not the weights: give that file (model_final.pth)"),
        (b"output/osnet.pth.tar", "give that file (output/osnet.pth.tar)"),
        (b'{"error": "not found"}\n', "is a text file"),
        (b'model_checkpoint_path: "model.ckpt-100"\nall: 1\n', "is a text file"),
        (b"\xef\xbb\xbf<html>sign in</html>", "is a web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    ],
)
def test_text_in_place_of_weights_is_named(text, words, tmp_path):
    assert "\n" not in refuse(save(tmp_path / "last_checkpoint", text), words)


@pytest.mark.parametrize("inside", [".", "archive"])
def test_an_unzipped_file_is_recognised_and_can_be_packed_again(inside, tmp_path):
    folder = tmp_path / "weights"
    with zipfile.ZipFile(save(tmp_path / "w.pth", torch_zip(weights_of(1)))) as archive:
        archive.extractall(folder)
    root = next(path.parent for path in folder.rglob("data.pkl"))
    target = root if inside == "." else folder
    message = refuse(target, "was unzipped", "zip -0 -r")
    start = Path(message.split("(cd ")[1].split(" && ")[0])
    with zipfile.ZipFile(tmp_path / "again.pth", "w", zipfile.ZIP_STORED) as archive:  # as that command packs it
        for path in (root, *sorted(root.rglob("*"))):
            archive.write(path, path.relative_to(start))
    assert_same(read_tensors(tmp_path / "again.pth"), weights_of(1))


def named(prefix: str, value: float) -> dict[str, np.ndarray]:
    return {f"{prefix}{name}": np.full(3, value, np.float32) for name in ("a.w", "b.w")}


NAMED = {
    "Lightning": {**named("model.", 1), **named("model_ema.", 2)},
    "capitals": {**named("model.", 1), **named("emaModel.", 2)},
    "data parallel": {**named("module.model.", 1), **named("module.ema_model.module.", 2)},
    "counted": {**named("net.", 1), **named("ema.net.", 2), "ema.num_updates": np.array(5), "ema.decay": np.ones(())},
    "plain names": {**named("", 1), **named("swa.", 2)},
}


@pytest.mark.parametrize("form", [*WRITERS, "safetensors"])
@pytest.mark.parametrize("tensors", NAMED.values(), ids=NAMED)
def test_averaged_weights_are_told_from_plain_ones_by_the_start_of_their_names(tensors, form, tmp_path, caplog):
    content = safetensors.numpy.save(dict(tensors)) if form == "safetensors" else WRITERS[form]({"state_dict": tensors})
    path = save(tmp_path / "w.pth", content)
    for choice, value, said in (("plain", 1, 0), ("ema", 2, 0), (None, 1, 1)):
        caplog.clear()
        found = read_file(path, choice).tensors
        assert {name[-3:] for name in found} == {"a.w", "b.w"}
        assert len(found) == 2
        assert all((tensor == value).all() for tensor in found.values())
        assert len(caplog.records) == said


def test_a_module_that_is_called_like_an_average_is_a_part_of_the_network(tmp_path, caplog):
    tensors = OrderedDict({**named("", 1), "ema.conv.weight": np.ones(3, np.float32)})
    path = save(tmp_path / "w.pth", torch_zip(tensors))
    assert_same(read_tensors(path), tensors)
    assert not caplog.records
    with pytest.raises(InputError, match=r"holds no EMA weights"):
        read_file(path, "ema")


@pytest.mark.parametrize("key", ["model_ema", "modelEMA", "ema", "swa_model", "avg_model", "shadow"])
def test_the_count_of_an_averaged_model_is_no_weight(key, tmp_path):
    averaged = {**named("module.", 2), "n_averaged": np.array(7)}
    path = save(tmp_path / "w.pth", torch_zip({"model": named("", 1), key: averaged}))
    assert_same(read_file(path, "ema").tensors, OrderedDict(named("module.", 2)))
    assert_same(read_file(path, "plain").tensors, OrderedDict(named("", 1)))
    for choice in (None, "ema"):
        alone = save(tmp_path / "alone.pth", torch_zip(averaged))
        assert_same(read_file(alone, choice).tensors, OrderedDict(named("module.", 2)))
