"""Whatever file or folder a command is given, it ends with one line and no traceback."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from deskpro_jax.cli import deskpro

# Content of a file that records what a workdir holds.
RECORDS = {
    "not JSON": b"not json",
    "not text": b"\xff\xfe\x00\x01",
    "a list": b"[]",
    "nothing": b"{}",
    "no section": b'{"model": 3}',
    "a number for a name": b'{"data": {"name": "synthetic_tiny"}, "model": {"backbone": 7}}',
    "an unknown method": b'{"model": {"name": "nothing", "backbone": "x0_25"}}',
    "a lost user module": b'{"model": {"backbone": "lost_module:net"}}',
}
FILES = {
    "text.txt": b"hello",
    "empty.pth": b"",
    "broken.pth": b"PK\x03\x04broken" * 9,
    "broken.safetensors": b'\x10\x00\x00\x00\x00\x00\x00\x00{"a":1}',
    "broken.npy": b"\x93NUMPY\x01\x00v\x00{",
    "broken.parquet": b"PAR1xxxxPAR1",
    "broken.csv": b"a,b\n1",
    "raising.py": b"raise ValueError('x')",
    "misspelt.py": b"def get_config(v=None):\n    return confg",
    "no_config.py": b"def get_config(v=None):\n    return 3",
    "broken.py": b"not python",
}


def paths(folder: Path) -> Iterator[Path]:
    """Makes everything that a command may be given by mistake."""
    yield folder / "absent"
    (folder / "empty").mkdir()
    yield folder / "empty"
    for name in ("config.json", "conversion.json", "results.json"):
        for number, content in enumerate(RECORDS.values()):
            workdir = folder / f"{number}_{name}"
            (workdir / "student/checkpoints/7").mkdir(parents=True)
            (workdir / name).write_bytes(content)
            yield workdir
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
        yield folder / name


def commands(path: str, out: str, photos: str) -> Iterator[list[str]]:
    """Yields command lines that read a path."""
    yield ["report", path, "--quick", "--out", f"{out}.html"]
    yield ["report", path, "--out", f"{out}.html"]
    yield ["convert", path, "--to", out]
    yield ["convert", path, "--to", f"{out}.safetensors"]
    yield ["embed", "--checkpoint", path, "--images", photos, "--out", f"{out}.npy"]
    yield ["search", "--gallery", path, "--query", photos, "--checkpoint", path]
    yield ["ablate", "--config", path, "--workdir", out]
    yield ["build", "--dataset", "folder", "--raw", path, "--out", out]
    yield ["version", path]
    yield ["review", path, "--out", f"{out}.html"]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """The commands handle SIGTERM for their process; here that is the process of the tests."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_every_command_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (32, 64)).save(photos / "photo.png")
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    for number, path in enumerate(paths(inputs)):
        for command in commands(str(path), str(tmp_path / f"out{number}"), str(photos)):
            code = deskpro.main(command)
            error = capsys.readouterr().err
            if code:
                lines = [line for line in error.splitlines() if line.startswith("error: ")]
                assert len(lines) == 1, (command, error)
                assert len(lines[0]) > len("error: .")
