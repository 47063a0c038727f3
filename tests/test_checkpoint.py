"""Checkpoints come back bit for bit, survive kills and damage, and move between device counts."""

from __future__ import annotations

import json
import logging as std_logging
import math
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import runs
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.errors import InputError, MissingInputError, RunError
from deskpro_jax.storage import checksums


@pytest.fixture
def tmp_path(tmp_path):
    """A phase's folder of checkpoints: its scores are beside it."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    return folder


def _state(seed, width=8):
    keys = jax.random.split(jax.random.key(seed), 2)
    params = {
        "conv": {"kernel": jax.random.normal(keys[0], (3, width)), "bias": jnp.full((width,), -0.0)},
        "half": jax.random.normal(keys[1], (5,)).astype(jnp.bfloat16),
        "odd": jnp.array([np.nan, -np.inf, 1e-42], jnp.float32),
    }
    return {
        "params": params,
        "batch_stats": {"mean": jnp.arange(width, dtype=jnp.float32) + seed},
        "opt_state": optax.adam(1e-3).init(params),
        "step": jnp.asarray(seed, jnp.int32),
    }


def _bytes(tree):
    return [(np.asarray(x).dtype, np.asarray(x).shape, np.asarray(x).tobytes()) for x in jax.tree.leaves(tree)]


def _same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and _bytes(a) == _bytes(b)


def _template(state):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)


def _filled(folder, steps, **options):
    with CheckpointStore(folder, best_metric="map", **options) as store:
        for step in steps:
            store.save(step, _state(step), data={"epoch": step})
    return folder


def _largest(folder):
    return max(folder.glob("state/d/*"), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_restored_state_is_bit_identical(tmp_path, asynchronous):
    state = _state(7)
    data = {"epoch": 3, "position": [1, 2], "config": "abc"}
    with CheckpointStore(tmp_path, best_metric=None, asynchronous=asynchronous) as store:
        assert store.restore(_template(state)) is None
        assert store.save(7, state, data=data)
        store.add_scores(7, {"map": 0.5})
    with CheckpointStore(tmp_path, best_metric=None) as store:
        restored = store.restore(_template(state))
    assert restored.step == 7
    assert restored.data == data
    assert _same(restored.state, state)


def test_arrays_donated_right_after_an_asynchronous_save_do_not_spoil_it(tmp_path):
    state = {"a": jnp.arange(1 << 20, dtype=jnp.float32), "b": jnp.ones((1 << 18,))}
    expected = jax.tree.map(np.array, state)
    change = jax.jit(lambda s: jax.tree.map(lambda x: x * -3 + 1, s), donate_argnums=0)
    with CheckpointStore(tmp_path, best_metric=None) as store:
        store.save(1, state, data={})
        for _ in range(5):
            state = change(state)
        jax.block_until_ready(state)
        restored = store.restore(_template(state))
    assert _same(restored.state, jax.tree.map(jnp.asarray, expected))


def test_typed_keys_come_back(tmp_path):
    with CheckpointStore(tmp_path, best_metric=None) as store:
        store.save(1, {"key": jax.random.key(5)}, data={})
        restored = store.restore({"key": jax.random.key(0)})
    assert jax.random.bits(restored.state["key"]) == jax.random.bits(jax.random.key(5))


def test_the_newest_two_and_the_best_are_kept(tmp_path):
    scores = {1: 0.1, 2: 0.9, 3: 0.2, 4: float("nan"), 5: None, 6: 0.3}
    with CheckpointStore(tmp_path, best_metric="map") as store:
        for step, score in scores.items():
            store.save(step, _state(step), data={})
            if score is not None:
                store.add_scores(step, {"map": score, "r1": 1.0})
        store.wait()
        assert store.steps() == (2, 5, 6)
        assert (store.latest_step(), store.best_step()) == (6, 2)
    on_disk = {p.name for p in tmp_path.iterdir() if p.name.isdigit()}
    assert on_disk == {"2", "5", "6"}
    with CheckpointStore(tmp_path, best_metric="map") as store:  # the ranking survives a restart
        assert store.best_step() == 2
        assert store.restore(_template(_state(2)), "best").step == 2
        assert store.restore(_template(_state(2)), 5).step == 5
        store.save(7, _state(7), data={})
        store.add_scores(7, {"map": 0.9})
        assert store.best_step() == 7  # equal: the newer is the best
        store.save(8, _state(8), data={})
        store.wait()
        assert store.steps() == (7, 8)


def test_scores_of_a_step_that_is_trained_again_are_forgotten(tmp_path):
    with CheckpointStore(_filled(tmp_path, [1, 2]), best_metric="map") as store:
        store.add_scores(1, {"map": 0.5})
        store.add_scores(2, {"map": math.nan})
        assert store.restore(_template(_state(2))).scores == {"map": None}
    assert "NaN" not in (tmp_path.parent / "scores.json").read_text()
    shutil.rmtree(tmp_path / "2")
    with CheckpointStore(tmp_path, best_metric="map") as store:
        store.save(2, _state(2), data={}, wait=True)
        restored = store.restore(_template(_state(2)))
        assert (restored.step, restored.scores) == (2, None)
        assert store.restore(_template(_state(1)), 1).scores == {"map": 0.5}


def test_scores_that_an_earlier_version_kept_in_the_checkpoints_still_count(tmp_path):
    _filled(tmp_path, [1, 2])
    for step, score in ((1, 0.9), (2, 0.4)):
        record = {"step": step, "data": {"epoch": step}, "metrics": {"map": score}}
        (tmp_path / str(step) / "data" / "metadata").write_text(json.dumps(record))
        checksums.write_checksums(tmp_path / str(step))
    (tmp_path.parent / "scores.json").unlink(missing_ok=True)
    with CheckpointStore(tmp_path, best_metric="map", read_only=True) as store:
        assert store.best_step() == 1
    assert not (tmp_path.parent / "scores.json").exists()
    with CheckpointStore(tmp_path, best_metric="map") as store:
        assert store.restore(_template(_state(2))).scores == {"map": 0.4}
        for step in (3, 4):
            store.save(step, _state(step), data={})
            store.add_scores(step, {"map": 0.1})
        store.wait()
        assert store.steps() == (1, 3, 4)  # the best of the earlier version stays
    with CheckpointStore(tmp_path, best_metric="map") as store:
        assert store.restore(_template(_state(1)), "best").scores == {"map": 0.9}


def test_without_a_metric_best_is_an_error_that_says_so(tmp_path):
    with CheckpointStore(_filled(tmp_path, [1]), best_metric="map") as store:
        assert store.best_step() is None
        with pytest.raises(InputError, match="'map'"):
            store.restore(_template(_state(1)), "best")
        with pytest.raises(MissingInputError, match=r"step 9 .*holds \[1\]"):
            store.restore(_template(_state(1)), 9)
        with pytest.raises(InputError, match="'newest'"):
            store.restore(_template(_state(1)), "newest")
        assert store.restore(_template(_state(1)), np.int64(1)).step == 1


def test_saving_a_step_twice_changes_nothing(tmp_path):
    with CheckpointStore(tmp_path, best_metric=None) as store:
        assert store.save(4, _state(4), data={"epoch": 1})
        assert not store.save(4, _state(5), data={"epoch": 2}, wait=True)
        restored = store.restore(_template(_state(4)))
        assert restored.data == {"epoch": 1}
        assert _same(restored.state, _state(4))
        with pytest.raises(RunError, match="already holds step 4"):
            store.save(3, _state(3), data={})


def test_data_that_is_not_json_is_refused(tmp_path):
    with CheckpointStore(tmp_path, best_metric=None) as store, pytest.raises(InputError, match="JSON"):
        store.save(1, _state(1), data={"bad": object()})


def _truncate(folder):
    path = _largest(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _flip(folder):
    path = _largest(folder)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


def _empty(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


def _lose(folder):
    (folder / "data" / "metadata").unlink()


def _spoil_checksums(folder):
    (folder / "checksums.json").write_text('{"files": {')


DAMAGES = {
    _truncate: "bytes instead of",
    _flip: "differs from its checksum",
    _empty: "empty",
    _lose: "data/metadata is missing",
    _spoil_checksums: "unreadable",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda f: f.__name__.strip("_"))
def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(tmp_path, caplog, damage):
    _filled(tmp_path, [1, 2])
    damage(tmp_path / "2")
    with CheckpointStore(tmp_path, best_metric="map", read_only=True) as store, caplog.at_level(std_logging.WARNING):
        assert store.restore(_template(_state(1))).step == 1
        assert (tmp_path / "2").is_dir()  # reading alone moves nothing
    assert f"{tmp_path / '2'} is damaged" in caplog.text
    assert DAMAGES[damage] in caplog.text
    with CheckpointStore(tmp_path, best_metric="map") as store:
        restored = store.restore(_template(_state(1)))
        assert restored.step == 1
        assert _same(restored.state, _state(1))
        assert store.steps() == (1,)
        assert (tmp_path / "damaged_2").is_dir()
        assert store.save(2, _state(2), data={}, wait=True)  # the damaged step can be saved again
        assert _same(store.restore(_template(_state(2))).state, _state(2))


def test_when_every_checkpoint_is_damaged_the_error_lists_each(tmp_path):
    _filled(tmp_path, [1, 2])
    _flip(tmp_path / "1")
    _empty(tmp_path / "2")
    with CheckpointStore(tmp_path, best_metric="map") as store:
        with pytest.raises(RunError) as caught:
            store.restore(_template(_state(1)))
        assert store.steps() == (1, 2)  # nothing is set aside: the next start fails too, instead of starting over
    for part in (str(tmp_path), "step 1: ", "differs from its checksum", "step 2: ", "empty"):
        assert part in str(caught.value)


@pytest.mark.parametrize("error", [MemoryError("3 GB"), RuntimeError("RESOURCE_EXHAUSTED: Out of memory")])
def test_too_little_memory_is_no_damage(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    with CheckpointStore(tmp_path, best_metric=None, asynchronous=False) as store:
        store.save(1, _state(1), data={}, wait=True)
        (tmp_path / "1" / checksums.CHECKSUM_FILE).unlink()
        monkeypatch.setattr(store, "_read", fail)
        with pytest.raises(type(error), match=str(error)):
            store.restore(_template(_state(1)))
        monkeypatch.undo()
        assert store.restore(_template(_state(1))).step == 1


# A read that fails leaves TensorStore's other reads to a closed event loop, which complain from their threads.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("damage", [None, _truncate, _lose])
def test_a_checkpoint_without_checksums_is_used_if_it_reads(tmp_path, caplog, damage):
    _filled(tmp_path, [1, 2])
    (tmp_path / "2" / "checksums.json").unlink()
    if damage:
        damage(tmp_path / "2")
    with CheckpointStore(tmp_path, best_metric="map") as store, caplog.at_level(std_logging.INFO):
        assert store.restore(_template(_state(1))).step == (1 if damage else 2)
    assert ("no checksums" in caplog.text) == (damage is None)
    assert (tmp_path / "2" / "checksums.json").exists() == (damage is None)


def test_another_model_is_an_error_with_both_shapes_and_no_fallback(tmp_path):
    _filled(tmp_path, [1, 2])
    other = _state(2, width=9)
    other["params"]["extra"] = {str(i): jnp.zeros(2) for i in range(20)}
    del other["batch_stats"]
    with CheckpointStore(tmp_path, best_metric="map") as store:
        with pytest.raises(InputError) as caught:
            store.restore(_template(other))
        text = str(caught.value)
        assert "params/conv/kernel: saved float32[3,8], expected float32[3,9]" in text
        assert "params/extra/0: saved nothing, expected float32[2]" in text
        assert "and 17 more" in text
        assert len(text.splitlines()) < 15
        wrong_type = _template(_state(2))
        wrong_type["step"] = jax.ShapeDtypeStruct((), jnp.float32)
        with pytest.raises(InputError, match=r"step: saved int32\[\], expected float32\[\]"):
            store.restore(wrong_type)
        wanted = {"params": _template(other["params"])}
        with pytest.raises(InputError, match="22 of"):
            store.restore_subtree(wanted)


def test_a_subtree_is_restored_without_the_optimiser(tmp_path):
    _filled(tmp_path, [1, 2])
    wanted = {k: _template(_state(0))[k] for k in ("params", "batch_stats")}
    with CheckpointStore(tmp_path, best_metric=None, read_only=True) as store:
        restored = store.restore_subtree(wanted)
        assert _same(restored.state, {k: _state(2)[k] for k in wanted})
        assert restored.data == {"epoch": 2}
        _flip(tmp_path / "2")
        assert store.restore_subtree(wanted).step == 1


def test_read_only_needs_a_folder_and_cannot_save(tmp_path):
    with pytest.raises(MissingInputError, match="nowhere"):
        CheckpointStore(tmp_path / "nowhere", best_metric=None, read_only=True)
    assert not (tmp_path / "nowhere").exists()
    with (
        CheckpointStore(_filled(tmp_path, [1]), best_metric=None, read_only=True) as store,
        pytest.raises(InputError, match="read-only"),
    ):
        store.save(2, _state(2), data={})


def _python(code, *arguments, devices=1, wait=True):
    environment = runs.environment(devices) | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    if not wait:
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=120).stdout


SHARDED = """
import sys, json, hashlib
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from deskpro_jax.checkpoints.store import CheckpointStore
mesh = Mesh(np.array(jax.devices()), ("data",))
place = lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec))
rng = np.random.default_rng(0)
values = {"split": rng.normal(size=(16, 3)).astype(np.float32), "whole": rng.normal(size=(5,)).astype(np.float32)}
specs = {"split": P("data"), "whole": P()}
state = {k: place(v, specs[k]) for k, v in values.items()}
with CheckpointStore(sys.argv[1], best_metric=None) as store:
    if sys.argv[2] == "save":
        store.save(1, state, data={})
    else:
        template = {k: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=v.sharding) for k, v in state.items()}
        got = store.restore(template).state
        assert all(got[k].sharding == state[k].sharding for k in state)
        assert all(np.array_equal(np.asarray(got[k]), values[k]) for k in values)
print(len(jax.devices()))
"""


def test_eight_devices_to_one_and_back(tmp_path):
    assert _python(SHARDED, tmp_path / "a", "save", devices=8).split() == ["8"]
    assert _python(SHARDED, tmp_path / "a", "restore", devices=1).split() == ["1"]
    assert _python(SHARDED, tmp_path / "b", "save", devices=1).split() == ["1"]
    assert _python(SHARDED, tmp_path / "b", "restore", devices=4).split() == ["4"]


SAVING = """
import sys
import jax.numpy as jnp
from deskpro_jax.checkpoints.store import CheckpointStore
store = CheckpointStore(sys.argv[1], best_metric=None)
small = lambda step: {str(i): jnp.full((64,), i + step) for i in range(40)}
state = lambda step: {"a": jnp.full((1 << 20,), float(step)), "b": small(step)}
store.save(1, state(1), data={}, wait=True)
print("ready", flush=True)
for step in range(2, 10_000):
    store.save(step, state(step), data={})
    print(step, flush=True)
"""


def test_killed_while_saving_it_goes_on_from_a_whole_checkpoint(tmp_path):
    process = _python(SAVING, tmp_path, wait=False)
    assert process.stdout.readline().strip() == "ready"
    last = int(process.stdout.readline())
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed of the moment: {seed}")  # shown when the test fails
    time.sleep(random.Random(seed).uniform(0, 0.3))  # any moment of a save or of its checksums
    process.send_signal(signal.SIGKILL)
    last = max([last, *(int(line) for line in process.communicate()[0].split("\n")[:-1])])
    with CheckpointStore(tmp_path, best_metric=None) as store:
        template = {"a": jax.ShapeDtypeStruct((1 << 20,), jnp.float32)}
        restored = store.restore_subtree(template)
        assert restored.step >= last - 1
        assert (np.asarray(restored.state["a"]) == restored.step).all()
        store.save(restored.step + 1, restored.state, data={}, wait=True)
        assert store.latest_step() == restored.step + 1
    assert not [p for p in tmp_path.iterdir() if "tmp" in p.name]


FULL_DISK = """
import resource, signal, sys
import jax.numpy as jnp, numpy as np
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.errors import RunError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
rng = np.random.default_rng(0)
state = {"a": jnp.asarray(rng.normal(size=(1 << 18,)), jnp.float32)}
store = CheckpointStore(sys.argv[1], best_metric=None)
store.save(1, {"a": state["a"]}, data={}, wait=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
store.save(2, state, data={})
try:
    store.wait()
except RunError as error:
    assert "step 2" in str(error) and sys.argv[1] in str(error), error
    print("told")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(store.restore(state).step)
store.save(2, state, data={}, wait=True)
print(store.restore(state).step)
store.close()
"""


def test_a_save_that_cannot_be_written_is_told_and_the_older_one_stays(tmp_path):
    assert _python(FULL_DISK, tmp_path).split() == ["told", "1", "2"]


TWO_PROCESSES = """
import sys
import jax, numpy as np
jax.distributed.initialize(f"localhost:{sys.argv[2]}", num_processes=2, process_id=int(sys.argv[3]))
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from deskpro_jax.checkpoints.store import CheckpointStore
from deskpro_jax.runtime.processes import any_process
mesh = Mesh(np.array(jax.devices()), ("data",))
sharding = NamedSharding(mesh, P("data"))
line = np.arange(8, dtype=np.float32)
make = lambda step: {"a": jax.make_array_from_callback((8,), sharding, lambda i: line[i] + step)}
rank = jax.process_index()
assert any_process(rank == 1) and not any_process(False)
with CheckpointStore(sys.argv[1], best_metric="map") as store:
    for step in (1, 2):
        store.save(step, make(step), data={"step": step}, wait=step == 2)
        store.add_scores(step, {"map": step / 10})
    if rank == 0:
        path = max((p for p in store._directory.glob("2/state/**/d/*")), key=lambda p: p.stat().st_size)
        path.write_bytes(path.read_bytes()[:-3])
    any_process(True)
    restored = store.restore(make(0))
    shard = restored.state["a"].addressable_shards[0]
    assert np.array_equal(np.asarray(shard.data), line[shard.index] + 1)
    assert store.save(2, make(2), data={}, wait=True)
    print(restored.step, restored.data["step"], store.steps())
"""


def test_two_processes_save_check_and_restore_together(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    both = [_python(TWO_PROCESSES, tmp_path, port, rank, wait=False) for rank in (0, 1)]
    outputs = [process.communicate(timeout=120)[0].strip().splitlines()[-1] for process in both]
    assert outputs == ["1 1 (1, 2)"] * 2
    assert (tmp_path / "damaged_2").is_dir()
    assert json.loads((tmp_path / "2" / "checksums.json").read_text())["files"]
