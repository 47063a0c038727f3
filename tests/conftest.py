"""Shared by all tests: CPU by default, quick compilation, parsed absl flags, folders that are made once."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
CACHE = Path(os.environ.get("DESKPRO_TEST_CACHE", Path(tempfile.gettempdir()) / "deskpro_jax_test_cache"))
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Most of the suite's time is compiling. Programs here run a few times, so they are compiled with few optimisations, and
# without the fusion emitters, which take half of what is left; processes that tests start do the same. With
# DESKPRO_TEST_OPTIMISED=1 they are compiled as users compile them: .ci/run does so for the files that compare numbers.
EMITTERS = "--xla_cpu_use_fusion_emitters"
if os.environ.get("DESKPRO_TEST_OPTIMISED") != "1":
    os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
    if EMITTERS not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {EMITTERS}=false".strip()

from absl import flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402

flags.FLAGS.mark_as_parsed()  # Grain's worker processes and readers look at absl flags

LOG_LEVEL = absl_logging.get_absl_logger().level

from collections.abc import Callable, Iterator  # noqa: E402

import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """Commands say how much is logged for their whole process; called in a test or a fixture, for that alone."""
    logger = absl_logging.get_absl_logger()
    logger.setLevel(LOG_LEVEL)  # a fixture of the module may have called one
    yield
    logger.setLevel(LOG_LEVEL)


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """Returns a folder that one of the testing processes makes and all of them use."""
    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent  # of all processes
    folder, done = shared / name, shared / f"{name}.done"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of one who failed
            folder.mkdir()
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest synthetic dataset, built once."""
    from deskpro_jax.data.build import builder

    return made_once(tmp_path_factory, "tiny", lambda folder: builder.build("synthetic_tiny", folder))


@pytest.fixture(scope="session")
def reference(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of a debug run that nothing interrupted; tests leave it as it is."""
    import runs

    return made_once(tmp_path_factory, "reference", lambda folder: runs.run(runs.config(tiny_data), folder))


@pytest.fixture(scope="session")
def untrained(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workdir of networks that nothing trained, mirrored images left out; tests leave it as it is."""
    import small_models

    fields = {"model__backbone": "x0_25", "eval__flip": False}  # an OSNet has published names, to be exported with
    return made_once(
        tmp_path_factory, "untrained", lambda folder: small_models.write_workdir(folder, tiny_data, **fields)
    )


# Files that take longest come first, so that no process is left with one of them at the end.
LONGEST = ("test_golden", "test_sharded", "test_faults", "test_convert", "test_run", "test_ablation", "test_official")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sorts by how long files take."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}

    def rank(item: pytest.Item) -> int:
        name = item.path.stem
        return LONGEST.index(name) if name in LONGEST else len(LONGEST) + (item.path not in slow)

    items.sort(key=rank)
