"""The benchmark of many identities compiles the step that training takes, and reads the compiler's figures right."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from benchmarks import abstract_step, depthwise, identities, remat
from configs import synthetic
from deskpro_jax.data.load import pipeline
from deskpro_jax.models.initialisers import init_variables
from deskpro_jax.runtime import sharding
from deskpro_jax.train import optimisers, step


def test_the_largest_array_of_a_program_is_found() -> None:
    text = "%a = f32[7,16,100]{2,1,0} fusion(f64[7,2]{1,0} %b), %c = bf16[7,16,300]{2,1,0}, %d = s32[9,9,9,9]{} f32[]"
    assert identities.largest_array(text) == (2 * 7 * 16 * 300, (7, 16, 300))
    assert identities.largest_array("no arrays") == (0, ())


def test_the_arguments_have_the_shapes_of_training() -> None:
    config = synthetic.get_config("face_fkp,debug")
    made = abstract_step.student_step(config, 11, sharding.make_mesh(config))
    expected = step.create_state(init_variables(made.module, 0), made.optimizer)
    state, fixed, batch, _ = made.arguments
    kind = lambda leaf: (np.shape(leaf), str(np.asarray(leaf).dtype if np.isscalar(leaf) else leaf.dtype))  # noqa: E731
    assert jax.tree.map(kind, state) == jax.tree.map(kind, expected)
    assert jax.tree.structure(fixed) == jax.tree.structure(init_variables(made.teacher, 0))  # type: ignore[arg-type]
    assert abstract_step.tree_bytes(state.params) == abstract_step.device_bytes(made.mesh, state.params)
    assert {name: leaf.shape[1:] for name, leaf in batch.items()} == {
        **dict.fromkeys(("identity", "valid", "has_face", "has_mask"), ()),
        **dict.fromkeys(("face", "restored_face"), (32, 32, 3)),
    }
    assert set(batch) <= {*pipeline.FIELDS, "identity", "valid", "has_face", "has_mask"}
    assert isinstance(made.optimizer, type(optimisers.adam(1.0, 0.0)))


@pytest.mark.parametrize(
    ("command", "arguments", "words"),
    [
        (identities, ["--model=0"], "--identities, --model, --devices and --feature-dim have to be 1 or more"),
        (identities, ["--identities=many"], "invalid literal"),
        (remat, ["--remat=all"], "expected one of none, light, blocks"),
        (remat, ["--identities=0"], "--identities is 0"),
        (remat, ["--variant=deskpro_tsar"], "did you mean"),
    ],
)
def test_wrong_flags_are_refused(
    command: object, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main(arguments) == 2  # type: ignore[attr-defined]
    assert words in capsys.readouterr().err


def test_the_forms_of_the_depthwise_convolution_are_compared(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(depthwise, "MAP", (4, 4, 8))
    monkeypatch.setattr(depthwise, "FEATURES", 64)
    assert depthwise.main(["--forms=auto,grouped", "--batch=2", "--seconds=0"]) == 0
    rows = [line.split("│")[1:-1] for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
    assert [row[0].strip() for row in rows] == ["auto", "grouped"]
    assert all(float(cell.replace(",", "")) >= 0 for row in rows for cell in row[1:])
    assert depthwise.main(["--forms=fast"]) == 2
    assert "train.depthwise is 'fast'" in capsys.readouterr().err
