"""Checkpoints with Orbax: the latest and the best kept, checked when read, an undamaged older one used if need be."""

from __future__ import annotations

import contextlib
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import orbax.checkpoint as ocp
from absl import logging

from deskpro_jax.checkpoints import scores as scores_
from deskpro_jax.checkpoints import templates
from deskpro_jax.checkpoints.metadata import damages_message
from deskpro_jax.errors import InputError, MissingInputError, RunError, out_of_memory_line
from deskpro_jax.runtime.processes import from_process_0
from deskpro_jax.storage import checksums, files

PyTree = Any
Step = int | Literal["latest", "best"]


_PATTERNS = ("[", "**", "\\")  # Orbax (etils) looks for the files of a new checkpoint with glob, unescaped


class Restored(NamedTuple):
    """A checkpoint read back: the arrays, the JSON data saved with them, its step, its scores (None: not evaluated)."""

    state: PyTree
    data: dict[str, Any]
    step: int
    scores: dict[str, float | None] | None = None


class CheckpointStore:
    """The checkpoints of one training phase in one folder, a folder for each step.

    Every process calls every method, in the same order; only process 0 writes checksums and scores. The newest two
    and the best of each metric are kept. A step folder whose content does not match its checksums is renamed to
    `damaged_<step>` once an older one has been restored.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        best_metric: str | Sequence[str] | None,
        asynchronous: bool = True,
        read_only: bool = False,
    ):
        """Opens a folder of checkpoints and removes what a killed save left in it.

        Args:
            directory: the folder, of a phase that gets `scores.json` beside it; made when it does not exist.
            best_metric: name of the score whose largest value makes the best checkpoint; of several names the best of
                each is kept, and the first is the default; None keeps only the newest two.
            asynchronous: whether `save` returns once the arrays are copied, and writes in the background.
            read_only: True neither makes, removes, renames nor writes anything.

        Raises:
            InputError: Orbax cannot write to a path with these characters.
            MissingInputError: `read_only` and there is no such folder.
        """
        self._directory = Path(directory).absolute()
        if not read_only and (strange := [text for text in _PATTERNS if text in str(self._directory)]):
            raise InputError(
                f"checkpoints cannot be written to {self._directory}: Orbax takes {strange[0]} in a path for a pattern,"
                " and would lose them; use a path without."
            )
        self._metrics = (best_metric,) if isinstance(best_metric, str) else tuple(best_metric or ())
        self._best_metric, self._read_only = next(iter(self._metrics), None), read_only
        if read_only and not self._directory.is_dir():
            raise MissingInputError(f"no checkpoint folder at {self._directory}: train first, or correct the path")
        if not read_only and jax.process_index() == 0:
            files.remove_temporaries(self._directory.parent)
        self._scores = scores_.read_scores(self._directory)
        self._sealer: threading.Thread | None = None
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                preservation_policy=self,
                create=not read_only,
                cleanup_tmp_directories=not read_only,
                enable_async_checkpointing=asynchronous,
            ),
        )

    @property
    def directory(self) -> Path:
        """The folder of the checkpoints."""
        return self._directory

    def __enter__(self) -> CheckpointStore:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        try:
            self.close()
        except RunError as failure:
            if error is None:
                raise
            logging.error("%s", failure)  # the error on its way out says more than its consequence

    def save(self, step: int, state: PyTree, *, data: Mapping[str, Any], wait: bool = False) -> bool:
        """Saves `state` as the checkpoint of `step`; the arrays may be donated or overwritten as soon as it returns.

        Args:
            step: training steps done; a step that is already saved is left as it is.
            state: tree of jax arrays.
            data: what else a restart needs, as JSON values (epoch, images skipped, loss terms not yet written).
            wait: whether to return only when the checkpoint and its checksums are on disk.

        Returns:
            Whether this call saved anything.

        Raises:
            InputError: `data` is not JSON, or the store is read-only.
            RunError: a newer step is already there, or this or the save before it could not be written.
        """
        step = int(step)
        if self._read_only:
            raise InputError(f"the checkpoints in {self._directory} were opened read-only: open them writable to save")
        record = {"step": step, "data": dict(data)}
        try:
            json.dumps(record)
        except (TypeError, ValueError) as error:
            raise InputError(f"the data of checkpoint {step} must be JSON values: {error}") from error
        if step in self.steps():
            if wait:
                self.wait()
            return False
        if self.steps() and step < self.steps()[-1]:
            raise RunError(
                f"{self._directory} already holds step {self.steps()[-1]}, newer than step {step} about to be saved:"
                " restore the latest step before training on, or use another workdir"
            )
        self.wait()
        arguments = ocp.args.Composite(state=ocp.args.PyTreeSave(state), data=ocp.args.JsonSave(record))
        with self._explained(f"step {step}"):
            if any(scored >= step for scored in self._scores):  # of checkpoints that were removed or set aside
                self._set_scores({scored: value for scored, value in self._scores.items() if scored < step})
            self._manager.save(step, args=arguments, force=True)
        if jax.process_index() == 0:
            self._sealer = threading.Thread(target=self._seal, args=(step,), name="checksums", daemon=True)
            self._sealer.start()
        if wait:
            self.wait()
        return True

    def add_scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Adds the scores of a checkpoint to the phase's `scores.json`; killed on the way, it has none or all of them.

        Args:
            step: of a checkpoint that this store has saved or restored.
            scores: by name; those of `best_metric` are compared.

        Raises:
            RunError: the folder cannot be written.
        """
        with self._explained(f"step {step}"):
            finite = {name: float(value) if math.isfinite(value) else None for name, value in scores.items()}
            self._set_scores({**self._scores, int(step): finite})

    def _set_scores(self, scores: scores_.Scores) -> None:
        self._scores = scores
        if jax.process_index() == 0:
            scores_.write_scores(self._directory, scores)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        """Returns for each checkpoint, oldest first, whether it stays: Orbax's preservation policy."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = scores_.kept(self._scores, steps, self._metrics)
        return [step in kept for step in steps]

    def restore(
        self,
        template: PyTree | Callable[[PyTree], PyTree],
        step: Step = "latest",
        *,
        metric: str | None = None,
        subtree: bool = False,
    ) -> Restored | None:
        """Restores a whole state, bit for bit, onto the devices that the template names.

        Args:
            template: tree of arrays or `jax.ShapeDtypeStruct` equal to the saved one in names, shapes and types; its
                shardings may be of other devices than those at the time of saving. Or a function to it from the saved
                tree, whose leaves have `shape` and `dtype`.
            step: a step, "latest", or "best" (largest `best_metric`). A damaged checkpoint is reported, and for
                "latest" and "best" the next one is taken.
            metric: score that "best" goes by; None for the first `best_metric`.
            subtree: whether the saved tree may have more branches than the template: the optimiser's, other streams.

        Returns:
            The checkpoint, or None when the folder holds none.

        Raises:
            InputError: the template does not fit the checkpoint, or no checkpoint has a score to find the best by.
            MissingInputError: `step` is a number and there is no such step.
            RunError: every candidate is damaged.
        """
        self.wait()
        if self._read_only:
            self._manager.reload()  # a training run may have saved, scored and removed steps meanwhile
            self._scores = scores_.read_scores(self._directory)
        damages: dict[int, str] = {}
        for candidate in self._candidates(step, metric or self._best_metric):
            folder = self._directory / str(candidate)
            sealed = checksums.has_checksums(folder)
            damage = from_process_0(partial(checksums.find_damage, folder))
            if not damage:
                try:
                    restored = self._read(folder, candidate, template, subtree)
                except InputError:
                    raise
                except Exception as error:
                    if out_of_memory_line(error):  # no damage: the files stay as they are
                        raise
                    if sealed:  # the files are as they were written, so an older step would fail alike
                        raise RunError(
                            f"checkpoint {folder} matches its checksums but cannot be restored ({_short(error)})"
                        ) from error
                    damage = _short(error)
                else:
                    self._settle(candidate, sealed, damages)
                    return restored
            logging.warning("checkpoint %s is damaged and not used: %s", folder, damage)
            damages[candidate] = damage
        if not damages:
            return None
        raise RunError(damages_message(self._directory, damages))

    def restore_subtree(self, template: PyTree, step: Step = "latest", *, metric: str | None = None) -> Restored | None:
        """Restores the branches of a state that the template has, for instance parameters and statistics only."""
        return self.restore(template, step, metric=metric, subtree=True)

    def steps(self) -> tuple[int, ...]:
        """Returns the steps in the folder, ascending, a save in progress included and unchecked for damage."""
        return tuple(sorted(self._manager.all_steps()))

    def latest_step(self) -> int | None:
        """Returns the newest step of `steps`, or None."""
        return max(self.steps(), default=None)

    def best_step(self, metric: str | None = None) -> int | None:
        """Returns the step with the largest finite score (the newer of equals; the first `best_metric` by default)."""
        return next(iter(scores_.ranked(self._scores, self.steps(), metric or self._best_metric)), None)

    def wait(self) -> None:
        """Waits until the last save and its checksums are on disk; raises RunError when it could not be written."""
        with self._explained(f"step {self.latest_step()}"):
            self._manager.wait_until_finished()
        if self._sealer is not None:
            self._sealer.join()
            self._sealer = None

    def close(self) -> None:
        """Waits as `wait` does, then frees Orbax's threads."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _seal(self, step: int) -> None:
        # Runs beside training, after Orbax renamed the finished step folder into place.
        with contextlib.suppress(Exception):  # the main thread meets the same failure in wait()
            self._manager.wait_until_finished()
        folder = self._directory / str(step)
        try:
            if folder.is_dir():
                checksums.write_checksums(folder)
        except OSError as error:
            logging.warning("no checksums for checkpoint %s: %s", folder, error)

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if out_of_memory_line(error):
                raise
            raise RunError(
                f"the checkpoint of {what} could not be written to {self._directory} ({_short(error)}):"
                " check free space and permissions; older steps remain"
            ) from error

    def _candidates(self, step: Step, metric: str | None) -> list[int]:
        steps = sorted(self.steps(), reverse=True)
        if isinstance(step, str):
            if step not in ("latest", "best"):
                raise InputError(f"no checkpoint is called {step!r}: ask for a step, 'latest' or 'best'")
            candidates = steps if step == "latest" else scores_.ranked(self._scores, steps, metric)
            if steps and not candidates:
                raise InputError(
                    f"no checkpoint in {self._directory} has the metric {metric!r} (steps {steps}):"
                    " ask for the latest, or evaluate during training"
                )
            return candidates
        if step not in steps:
            raise MissingInputError(f"no checkpoint of step {step} in {self._directory}: it holds {steps or 'none'}")
        return [int(step)]

    def _read(self, folder: Path, step: int, template: PyTree | Callable[[PyTree], PyTree], subtree: bool) -> Restored:
        metadata = ocp.PyTreeCheckpointHandler().metadata(folder / "state")
        saved = getattr(metadata, "tree", metadata)
        expected = templates.placed(template(saved) if callable(template) else template)
        templates.check_fits(folder, saved, expected, subtree)
        state_arguments = ocp.args.PyTreeRestore(
            item=expected,
            restore_args=ocp.checkpoint_utils.construct_restore_args(expected),
            partial_restore=subtree,
        )
        items = self._manager.restore(step, args=ocp.args.Composite(state=state_arguments, data=ocp.args.JsonRestore()))
        return Restored(items["state"], dict(items["data"]["data"]), step, self._scores.get(step))

    def _settle(self, step: int, sealed: bool, damages: Mapping[int, str]) -> None:
        folder = self._directory / str(step)
        if damages:
            logging.warning("going on from checkpoint %s in place of step %s", folder, ", ".join(map(str, damages)))
        if not sealed:
            logging.info("checkpoint %s has no checksums (killed after saving?); it reads well and is used", folder)
        if self._read_only:
            return
        if jax.process_index() == 0:
            if not sealed:
                self._seal(step)
            for damaged in damages:  # out of the way, so that training can save the same step again
                checksums.set_aside(self._directory / str(damaged))
        if damages:
            from_process_0(lambda: "renamed")  # nobody lists the folder before process 0 is done
            self._manager.reload()


def _short(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
