"""What every command says of an image file, by its own code and without starting it.

    python tests/image_readers.py 2000 [SEED]

draws so many files that combine kinds, has every command read each of them, and prints how many all of them take and
how many all of them refuse, by reason. Exit code 1 if two commands disagree or one of them fails otherwise.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image

import image_inputs
import standins
from data_prep import devices
from data_prep.checking import examine
from data_prep.detection.load import Detector
from data_prep.detection.person import Choice
from data_prep.parsing.load import Parser
from data_prep.stages import detect, parse, restore
from deskpro_jax.data.build.assemble import assemble
from deskpro_jax.data.build.image_sources import DatasetListing, ImageSource, PartsFormat
from deskpro_jax.data.image_report import KINDS
from deskpro_jax.data.images import UnreadableError, decode_image, inspect_image, read_photo
from deskpro_jax.data.schema import LIP
from deskpro_jax.embedding import embedder as embedder_module
from deskpro_jax.embedding.embedder import Embedder

Reader = Callable[[Path], str]  # "" where the file is taken, else why not

LANDMARKS = [float(value) for point in ((3, 2), (6, 2), (4, 4), (3, 6), (6, 6)) for value in point]


class Surprise(Exception):
    """A reader took a file, but not as the others do."""


def _source(path: Path) -> ImageSource:
    return ImageSource("train", "x", 1, -1, -1, str(path))


def check(path: Path) -> str:
    """The verdict of `data_prep.check`."""
    listing = DatasetListing([_source(path)], PartsFormat(), {})
    (image,) = examine.run(examine.source_tasks(listing), 0, lambda count: None)
    return "".join(problem.text.strip() for problem in image.problems)


def build(path: Path) -> str:
    """The verdict of `data_prep.build`, and whether training reads from the dataset what the other commands read."""
    assembled = assemble(_source(path), PartsFormat())
    if assembled.example is None:
        return assembled.findings[0].reason.strip()
    stored = assembled.example.body
    if (report := inspect_image(stored)).problems or report.orientation != 1:
        raise Surprise(f"{path.name} is stored as a file that cannot be used: {report}")
    if not np.array_equal(np.asarray(decode_image(stored)), np.asarray(read_photo(path))):
        raise Surprise(f"{path.name} is stored with other pixels than other commands read")
    return ""


def prepare(folder: Path) -> Reader:
    """The verdict of `data_prep.prepare`: of its three stages."""
    mesh, variables = devices.all_devices(), {"params": {"levels": np.zeros(20, np.float32)}}
    records: Any = None
    stages = (
        parse.ParseStage(Parser(LIP, standins.PARSER_SIZE, variables, ""), records, folder, mesh, 1),
        detect.DetectStage(Detector("mobilenet0.25", variables, ""), Choice(), records, folder, mesh, 1),
        restore.RestoreStage(None, standins.FACE_SIZE, records, folder, mesh, 1),
    )

    def read(path: Path) -> str:
        verdicts, size = [], [8, 8]
        for stage in stages:
            try:
                item = stage.load(path.name, {"best": 0, "landmarks": LANDMARKS, "size": size})
                size = item.row.get("size", size)
                verdicts.append("")
            except UnreadableError as error:
                verdicts.append(str(error))
        if len(set(verdicts)) > 1:
            raise Surprise(f"the stages disagree on {path.name}: {verdicts}")
        return verdicts[0]

    return read


def embed(embedder: Embedder) -> Reader:
    """The verdict of `deskpro_jax.embed` and `deskpro_jax.search`."""

    def read(path: Path) -> str:
        (block,) = embedder.stream([(path, None)], faces=False)
        return block.failures.get(0, "")

    return read


def embed_face(embedder: Embedder) -> Reader:
    """The verdict of `deskpro_jax.embed` on a face."""
    photo = Image.new("RGB", (8, 8))

    def read(path: Path) -> str:
        (block,) = embedder.stream([(photo, path)], faces=True)
        return block.failures.get(0, "").removeprefix(f"its face {path}: ")

    return read


def report(path: Path) -> str:
    """The verdict of the reader that review and report use."""
    try:
        read_photo(path)
    except UnreadableError as error:
        return str(error)
    return ""


def compiled(networks: Any, flip: bool, mesh: Any) -> Callable[..., np.ndarray]:
    """Stands in for the networks: what they compute is not the question here."""
    width = sum(spec.width for network in networks for spec in network.streams)
    return lambda variables, batch: np.full((len(batch["valid"]), width), 0.1, np.float32)


def readers(folder: Path, workdir: Path) -> dict[str, Reader]:
    """Returns the reader of each command.

    Args:
        folder: where the files are.
        workdir: with networks, which do not run; `compiled` has to stand in for them.
    """
    embedder = Embedder(workdir, batch=1, threads=1)
    return {
        "check": check,
        "build": build,
        "prepare": prepare(folder),
        "embed, search": embed(embedder),
        "embed, a face": embed_face(embedder),
        "review, report": report,
    }


def verdicts(path: Path, commands: Mapping[str, Reader]) -> dict[str, str]:
    """Returns what each command says of a file: "" where it takes it."""
    said = {}
    for command, read in commands.items():
        try:
            said[command] = read(path)
        except Exception as error:  # a traceback, to users
            said[command] = f"!! {type(error).__name__}: {error}"
    return said


def kind_of(verdict: str) -> str:
    """Returns the name of the problem that a verdict is about."""
    return next((name for name, kind in KINDS.items() if kind.fatal and verdict.startswith(f"{kind.text} (")), verdict)


def main(count: int, seed: int = 0) -> int:
    """Reads many files; returns the exit code."""
    import small_models
    from deskpro_jax.data.build import builder

    taken, refused, disagreements = 0, Counter[str](), []
    with tempfile.TemporaryDirectory() as place, mock.patch.object(embedder_module, "_compiled", compiled):
        builder.build("synthetic_tiny", Path(place) / "data", progress=False)
        workdir = small_models.write_workdir(Path(place) / "run", Path(place) / "data")
        folder = Path(place) / "photos"
        folder.mkdir()
        commands = readers(folder, workdir)
        for file in image_inputs.combined(count, seed):
            path = folder / file.name
            path.write_bytes(file.content)
            said = verdicts(path, commands)
            if len(set(said.values())) > 1 or any(verdict.startswith("!!") for verdict in said.values()):
                disagreements.append((file.name, said))
            elif verdict := said["check"]:
                refused[kind_of(verdict)] += 1
            else:
                taken += 1
            path.unlink()
    print(f"{count} files, {len(commands)} readers: {taken} taken by all, {sum(refused.values())} refused by all")
    for name, number in refused.most_common():
        print(f"  {number:5d} {name}")
    for name, said in disagreements:
        print(f"{name}: {said}")
    print(f"{len(disagreements)} disagreements or tracebacks")
    return 1 if disagreements else 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
