"""The list of commands: name, module, summary and examples of each; and the parser that shows them as help."""

from __future__ import annotations

import argparse
from dataclasses import dataclass

PROGRAM = "deskpro"
EXIT_CODES = "exit codes: 0 done, 1 failed or work remains, 2 wrong flag, field or file"


@dataclass(frozen=True)
class Command:
    """A command of `deskpro`.

    Attributes:
        name: as it is typed.
        module: has `main(arguments) -> exit code`; imported only when the command is run.
        summary: one line of help.
        examples: command lines, without the program's name.
        arguments: flags that are added to those of the user.
        extra: optional dependencies that it may need.
        function: name of the function in the module.
    """

    name: str
    module: str
    summary: str
    examples: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    extra: str = ""
    function: str = "main"


COMMANDS = (
    Command(
        "prepare",
        "data_prep.prepare",
        "photos of people into body-part labels, faces and restored faces",
        (
            "prepare --images photos --out prepared --detector mobilenet0.25_Final.pth --restorer GPEN-BFR-256.pth",
            "prepare --images photos --out prepared --parser exp-schp-201908261155-lip.pth",
            "prepare --images photos --out prepared --detector mobilenet0.25_Final.pth --restorer lanczos",
        ),
        extra="prep",
    ),
    Command(
        "review",
        "data_prep.review",
        "an HTML page with samples of the output of prepare",
        ("review prepared", "review prepared --out review.html --samples 100"),
        extra="prep",
    ),
    Command(
        "check",
        "data_prep.check",
        "checks every image and label of a dataset; lists what to fix",
        ("check LTCC_ReID", "check photos/manifest.csv --parts prepared --json problems.json"),
    ),
    Command(
        "build",
        "data_prep.build",
        "a dataset from its authors' files, or from a CSV",
        (
            "build --dataset celeb --raw Celeb-reID --parts prepared --out datasets",
            "build --dataset folder --raw photos/manifest.csv --out datasets",
        ),
    ),
    Command(
        "draw",
        "deskpro_jax.cli.draw",
        "a synthetic dataset as folders of images",
        ("draw --size small --seed 0 --out drawn",),
    ),
    Command(
        "train",
        "deskpro_jax.cli.train",
        "trains and evaluates the method of a configuration",
        (
            "train --config synthetic --workdir runs/synthetic",
            "train --config celeb --workdir runs/celeb --config.data.raw_dir=DIR --config.train.epochs=60",
            "train --config celeb_light:csa_att --workdir runs/csa_att --config.data.data_dir=datasets",
        ),
        function="command",
    ),
    Command(
        "evaluate",
        "deskpro_jax.cli.train",
        "scores the checkpoints of a workdir, on any dataset",
        (
            "evaluate --config celeb --workdir runs/celeb --config.data.data_dir=datasets",
            "evaluate --config prcc --workdir runs/celeb --config.data.raw_dir=DIR --config.eval.rerank=True",
        ),
        arguments=("--mode=evaluate",),
        function="command",
    ),
    Command(
        "ablate",
        "deskpro_jax.cli.ablate",
        "trains the rows of the paper's ablation table and writes the table",
        ("ablate --config synthetic --seeds 3 --workdir runs/ablation",),
    ),
    Command(
        "compare",
        "deskpro_jax.cli.compare",
        "trains and scores several methods alike, beside their published figures",
        (
            "compare --config synthetic --methods deskpro,lmbn,pcb --seeds 3 --workdir runs/compared",
            "compare --config celeb --methods bot,pcb --start bot,pcb=resnet50-19c8e357.pth --workdir runs/compared",
            "compare --published prcc",
        ),
        extra="report",
    ),
    Command(
        "report",
        "deskpro_jax.cli.report",
        "one HTML page about a run: curves, results, ranked lists, attention maps",
        ("report runs/celeb", "report runs/celeb --out celeb.html"),
        extra="report",
    ),
    Command(
        "convert",
        "deskpro_jax.cli.convert",
        "published weights into a workdir; a workdir into safetensors, StableHLO or ONNX",
        (
            "convert celeb_deskpro.pth --to runs/released",
            "convert runs/celeb --to celeb.safetensors",
            "convert runs/celeb --to celeb.onnx",
        ),
        extra="onnx",
    ),
    Command(
        "embed",
        "deskpro_jax.cli.embed",
        "any number of photos into a file of embeddings",
        (
            "embed --checkpoint runs/celeb --images photos --faces prepared --out gallery.parquet",
            "embed --checkpoint celeb.safetensors --images 'photos/**/*.jpg' --out gallery.npy",
        ),
        extra="embed",
    ),
    Command(
        "search",
        "deskpro_jax.cli.search",
        "ranks a gallery of embeddings by similarity to query photos",
        (
            "search --gallery gallery.parquet --query photo.jpg --checkpoint runs/celeb -k 20",
            "search --gallery gallery.parquet --query queries.parquet --method hnsw --index gallery.index",
        ),
        extra="faiss",
    ),
    Command(
        "version",
        "deskpro_jax.cli.version",
        "versions, devices and checksums, for bug reports",
        ("version", "version runs/celeb --json"),
    ),
)


def find_command(name: str) -> Command | None:
    """Returns the command that is called `name`, None where there is none."""
    return next((command for command in COMMANDS if command.name == name), None)


def examples(command: Command) -> str:
    """Returns the examples of a command, as its help shows them."""
    return "\n".join(("examples:", *(f"  {PROGRAM} {line}" for line in command.examples)))


def command_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Returns the parser of a command, without flags yet: its name, its description, its examples.

    Args:
        name: of the command, one of `COMMANDS`.
        description: what it does.
    """
    command = find_command(name)
    assert command is not None, name
    return argparse.ArgumentParser(
        prog=f"{PROGRAM} {name}",
        description=(description or command.summary).split("; returns")[0].strip().rstrip(".") + ".",
        epilog=f"{examples(command)}\n\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
