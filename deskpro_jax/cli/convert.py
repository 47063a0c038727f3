"""Command line: published weights into a workdir; a workdir's networks into safetensors, StableHLO or ONNX.

python -m deskpro_jax.convert osnet_x1_0_imagenet.pth --to weights/osnet
python -m deskpro_jax.convert runs/celeb --to celeb.safetensors
python -m deskpro_jax.convert runs/celeb --to celeb.stablehlo
python -m deskpro_jax.convert runs/celeb --to celeb.onnx
"""

from __future__ import annotations

import argparse
import logging as std_logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from deskpro_jax.checkpoints.selection import REPORTS, Steps
from deskpro_jax.cli.arguments import size
from deskpro_jax.cli.commands import command_parser
from deskpro_jax.errors import InputError, end_command
from deskpro_jax.methods import published_names
from deskpro_jax.models.attention import FORMS
from deskpro_jax.models.osnet import OS_STREAMS
from deskpro_jax.serving.artifact import FORMATS, export_program
from deskpro_jax.serving.program import CHOICES, IMAGES
from deskpro_jax.weights.families import FAMILIES, ROLES
from deskpro_jax.weights.other_files import refuse_unzipped
from deskpro_jax.weights.state_dict import CHOICES as CHOICES_OF_WEIGHTS
from deskpro_jax.workdir.conversion import import_weights
from deskpro_jax.workdir.export import export_weights

SAFETENSORS = ".safetensors"
# Options by purpose; each is None when the flag is absent.
_IMPORT = {"--as": "role", "--streams": "streams", "--attention": "attention", "--identities": "identities",
           "--dont-load": "dont_load", "--weights": "weights"}  # fmt: skip
_EXPORT = {"--report": "report", "--compact": "compact"}
_PROGRAM = {"--network": "network", "--images": "images", "--flip": "flip", "--body-size": "body_size",
            "--face-size": "face_size"}  # fmt: skip


def _families() -> tuple[str, ...]:
    """Returns the families of published names."""
    return tuple(dict.fromkeys((*FAMILIES, *(names.family for _, names in published_names() if not names.start))))


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("convert", main.__doc__)
    parser.add_argument("source", type=Path, help="a PyTorch or safetensors file, pretrained:NAME, or a workdir")
    endings = ", ".join(f"FILE{ending}" for ending in (SAFETENSORS, *FORMATS))
    parser.add_argument("--to", type=Path, required=True, help=f"new folder; from a workdir {endings}")
    parser.add_argument("--family", choices=_families(), help="family of the weights that are read or written")
    parser.add_argument("--report", choices=REPORTS, help="checkpoint of a workdir to export (default: last)")
    parser.add_argument(
        "--compact",
        action="store_true",
        default=None,
        help=f"write a FILE{SAFETENSORS} of only what embeddings depend on, in float16: no teacher, no classifiers",
    )
    files = parser.add_argument_group("from a weights file to a workdir")
    files.add_argument("--as", dest="role", choices=ROLES, help="network in the file, if its names do not show it")
    files.add_argument("--streams", choices=OS_STREAMS, help="OSBlock streams, if the file does not show them")
    files.add_argument("--attention", choices=(*FORMS, "none"), help="form of CSA that the body network must have")
    files.add_argument("--identities", type=int, help="size of new classifiers (default: the file's own are kept)")
    files.add_argument("--dont-load", action="append", metavar="REGEX", help="names of tensors to leave out")
    files.add_argument("--weights", choices=CHOICES_OF_WEIGHTS, help="plain (default) or EMA, of a file that has both")
    parser.add_argument("--network", choices=CHOICES, help="network of a workdir to export (default: as configured)")
    programs = parser.add_argument_group("from a workdir to StableHLO or ONNX")
    programs.add_argument("--images", choices=IMAGES, help="uint8 images (default), or normalised floats")
    programs.add_argument(
        "--flip", action=argparse.BooleanOptionalAction, help="add the mirrored image's features (default: eval.flip)"
    )
    programs.add_argument("--body-size", type=size, metavar="HxW", help="size of photos (default: the configuration's)")
    programs.add_argument("--face-size", type=size, metavar="HxW", help="size of faces (default: the configuration's)")
    return parser


def _refuse(options: argparse.Namespace, flags: dict[str, str], purpose: str) -> None:
    used = [flag for flag, name in flags.items() if getattr(options, name) is not None]
    if used:
        raise InputError(f"{', '.join(used)} cannot be used for {purpose}: leave it out.")


def _import(options: argparse.Namespace) -> None:
    if options.to.suffix in (SAFETENSORS, *FORMATS):
        raise InputError(f"{options.source} is a file; --to takes a new folder then. Convert that to {options.to}.")
    _refuse(options, _PROGRAM | _EXPORT, "a weights file")
    if options.identities is not None and options.identities < 1:
        raise InputError(f"--identities is {options.identities}; it must be an integer >= 1.")
    record = import_weights(
        options.source,
        options.to,
        family=options.family,
        role=options.role,
        os_streams=options.streams,
        attention=options.attention,
        identities=options.identities,
        dont_load=options.dont_load or (),
        weights=options.weights,
    )
    for note in record["notes"]:
        print(f"note: {note}")
    streams = f", streams {record['streams']}" if record["streams"] else ""
    print(f"{options.to}: {record['family']}, {', '.join(record['networks'])}{streams}")
    print(" ".join(f"--config.model.{name}={value}" for name, value in record["model"].items()))


def _export(options: argparse.Namespace) -> None:
    refuse_unzipped(options.source)
    _refuse(options, _IMPORT, "a workdir")
    report = options.report or "last"
    if options.to.suffix == SAFETENSORS:
        others = {flag: name for flag, name in _PROGRAM.items() if name != "network"}
        _refuse(options, others, f"{SAFETENSORS} files")
        compact = bool(options.compact)
        only = CHOICES[options.network] if options.network else None
        steps = export_weights(
            options.source, options.to, family=options.family, report=report, compact=compact, only=only
        )
        print(f"{options.to}: {', '.join(f'{phase} of {_step_text(step)}' for phase, step in steps.items())}")
        return
    if options.to.suffix not in FORMATS:
        endings = ", ".join(f"FILE{ending}" for ending in (SAFETENSORS, *FORMATS))
        raise InputError(f"{options.source} is a workdir; --to takes {endings} then, not {options.to}.")
    _refuse(options, {"--family": "family", "--compact": "compact"}, f"{options.to.suffix} files")
    choices = {name: getattr(options, name) for name in _PROGRAM.values() if name != "images"}
    described = export_program(options.source, options.to, **choices, images=options.images or IMAGES[0], report=report)
    for network in described["networks"]:
        print(f"{network['role']}: {network['method']}, step {network['step']}")
    for kind in ("inputs", "outputs"):
        shown = [f"{e['name']} {e['dtype']}[{', '.join(map(str, e['shape']))}]" for e in described[kind]]
        print(f"{kind}: {', '.join(shown)}")
    if "difference_from_flax" in described:
        print(f"differs from flax by at most {described['difference_from_flax']:.1e}")
    print(f"{options.to}: {described['bytes']} bytes, described in {options.to.name}.json")


def _step_text(step: Steps) -> str:
    if isinstance(step, int):
        return f"step {step}"
    return " and ".join(f"step {number} ({stream})" for stream, number in step.items())


def main(arguments: Sequence[str] | None = None) -> int:
    """Converts published weights into a workdir, or a workdir's networks into a file; returns the exit code."""
    options = _parser().parse_args(arguments)
    std_logging.getLogger("absl").setLevel(std_logging.WARNING)
    return end_command(lambda: _export(options) if options.source.is_dir() else _import(options))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves through `finally`: nothing half-written stays
    sys.exit(main())
