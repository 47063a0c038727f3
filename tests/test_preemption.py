"""A signal is noticed between steps; the second Ctrl-C ends the run at once."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading

import pytest

from deskpro_jax.runtime.processes import any_process
from deskpro_jax.runtime.signals import SignalGuard


@pytest.fixture(autouse=True)
def _handlers_unchanged():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_the_first_signal_is_a_request(name):
    with SignalGuard() as guard:
        assert guard.requested is None
        assert guard.stop_requested() is None
        os.kill(os.getpid(), signal.Signals[name])
        assert guard.requested == name
        assert guard.stop_requested() == name


def test_the_second_interrupt_raises():
    with SignalGuard() as guard:
        os.kill(os.getpid(), signal.SIGINT)
        assert guard.requested == "SIGINT"
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_more_termination_signals_do_not_end_the_save():
    with SignalGuard() as guard:
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGTERM)
        assert guard.requested == "SIGTERM"


def test_an_earlier_handler_comes_back():
    received = []
    before = signal.signal(signal.SIGTERM, lambda *_: received.append("old"))
    try:
        with SignalGuard():
            os.kill(os.getpid(), signal.SIGTERM)
        assert received == []
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == ["old"]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_guard_can_be_entered_again():
    guard = SignalGuard()
    with guard:
        os.kill(os.getpid(), signal.SIGTERM)
    with guard:
        assert guard.requested is None


def test_another_thread_changes_nothing():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def work():
        with SignalGuard() as guard:
            seen.extend([guard.requested, signal.getsignal(signal.SIGTERM) is before])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [None, True]


LOOP = """
import sys, time
from deskpro_jax.runtime.signals import SignalGuard
with SignalGuard() as guard:
    print("ready", flush=True)
    while guard.requested is None:
        time.sleep(0.01)
    print("saved after", guard.requested)
"""


def test_a_terminated_process_ends_its_work_first():
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), JAX_PLATFORMS="cpu")
    process = subprocess.Popen([sys.executable, "-c", LOOP], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    process.terminate()
    assert process.communicate(timeout=60)[0] == "saved after SIGTERM\n"
    assert process.returncode == 0


PROCESSES = """
import os, signal, sys, time
import jax
port, rank, name, *service = sys.argv[1:]
jax.config.update("jax_enable_preemption_service", not service)
jax.distributed.initialize(f"localhost:{port}", num_processes=2, process_id=int(rank))
from deskpro_jax.runtime.processes import sum_over_processes
from deskpro_jax.runtime.signals import SignalGuard
with SignalGuard() as guard:
    for step in range(1, 10_000):
        if step == 3 and rank == "1":
            os.kill(os.getpid(), signal.Signals[name])
        time.sleep(0.005)
        if stop := guard.stop_requested():
            break
assert sum_over_processes(step) == 2 * step
print(stop, "after a step" if step >= 3 else "too early")
"""


@pytest.mark.parametrize(("name", "service"), [("SIGTERM", True), ("SIGINT", True), ("SIGINT", False)])
def test_two_processes_stop_after_the_same_step(name, service):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), JAX_PLATFORMS="cpu")
    command = [sys.executable, "-c", PROCESSES, str(port)]
    options = [name] if service else [name, "without"]
    both = [
        subprocess.Popen([*command, rank, *options], env=environment, stdout=subprocess.PIPE, text=True)
        for rank in ("0", "1")
    ]
    outputs = [process.communicate(timeout=100)[0].splitlines()[-1] for process in both]
    assert outputs == ["SIGTERM after a step", f"{name} after a step"]  # the first got no signal itself
    assert [process.returncode for process in both] == [0, 0]


FORKED = """
import os, signal, time
from deskpro_jax.runtime.signals import SignalGuard
with SignalGuard() as guard, guard.expendable("taken for a signal to the parent."):
    receiver, sender = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(sender, b"r")  # a signal during the fork itself would still be the parent's
        while guard.requested is None:
            time.sleep(0.01)
        os._exit(3)
    os.read(receiver, 1)
    os.kill(child, signal.SIGTERM)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), guard.requested)
"""


def test_a_child_that_is_ended_does_not_stop_its_parent():
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path), JAX_PLATFORMS="cpu")
    done = subprocess.run([sys.executable, "-c", FORKED], env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "3 None\n"), done.stderr


def test_one_process_agrees_with_itself():
    assert any_process(True) is True
    assert any_process(False) is False
