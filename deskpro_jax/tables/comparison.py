"""A comparison of methods: its rows, and all that is shown of it, whatever the format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from deskpro_jax import methods
from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.configs import variants
from deskpro_jax.data.datasets.find import find_dataset
from deskpro_jax.errors import InputError
from deskpro_jax.storage.files import read_json
from deskpro_jax.tables import quoted
from deskpro_jax.tables.costs import Costs, read_costs
from deskpro_jax.tables.plan import Cell
from deskpro_jax.tables.quoted import QuotedRow, QuotedTable
from deskpro_jax.tables.recipe import describe_recipe, differing
from deskpro_jax.tables.spec import Row, Table
from deskpro_jax.tables.table import FIGURES, Figure, Scores, figure, protocols_of
from deskpro_jax.workdir.layout import RESULTS_FILE


def known_methods() -> tuple[str, ...]:
    """Returns the variants of a configuration that a comparison may have as rows."""
    return (*variants.ROWS, *methods.variants())


def comparison_table(names: Sequence[str], starts: Sequence[str] = ()) -> Table:
    """Returns the table that compares some methods.

    Args:
        names: variants that train them, in the order of the rows.
        starts: "NAME,NAME=FILE": weights that the photo networks of these methods start from.

    Raises:
        InputError: there is no such method, or none at all; near matches are named.
    """
    known = known_methods()
    names = list(dict.fromkeys(names))
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"there are {', '.join(known)}."
            raise InputError(f"--methods: no method {name!r}; {hint}")
    if not names:
        raise InputError(f"--methods is empty; give some of {', '.join(known)}.")
    flags: dict[str, tuple[str, ...]] = {}
    for start in starts:
        users, equals, path = start.partition("=")
        if not equals or not path:
            raise InputError(f"--start is {start!r}; expected METHOD=FILE, e.g. pcb,mgn=resnet50-19c8e357.pth.")
        for user in (user.strip() for user in users.split(",")):
            if user not in names:
                hint = did_you_mean(user, names) or f"there are {', '.join(names)}."
                raise InputError(f"--start: {user!r} is none of --methods; {hint}")
            flags[user] = (f"--config.init.body={path}",)
    rows = tuple(Row(name, label_of(name), flags=flags.get(name, ())) for name in names)
    return Table("", {}, rows, (), ("model.name",))


def label_of(variant: str) -> str:
    """Returns the papers' name of the method that a variant trains; another variant than the usual one is named too."""
    for method in quoted.METHODS:
        if variant in method.variants:
            return method.name if variant == method.variants[0] else f"{method.name} ({variant})"
    return variant


@dataclass(frozen=True)
class Line:
    """A method in a comparison.

    Attributes:
        row: of the table.
        scores: by protocol and figure, "mAP" or "R-1"; without those that are not finished.
        seeds: how many runs are finished.
        recipe: by what it is about, see `describe_recipe`.
        costs: of embedding; None where they were not measured.
        quoted: published figures of the method on the comparison's published dataset.
        problem: why it has no scores, or not of all seeds; "" otherwise.
    """

    row: Row
    scores: Mapping[tuple[str, str], Figure]
    seeds: int
    recipe: Mapping[str, str]
    costs: Costs | None
    quoted: tuple[QuotedRow, ...]
    problem: str = ""


@dataclass(frozen=True)
class Comparison:
    """All that is shown of a comparison.

    Attributes:
        title: the command in short.
        dataset: that was trained and tested on.
        protocols: names and descriptions.
        seeds: number of seeds.
        lines: the methods.
        differ: in what the recipes differ.
        same: what is the same in all of them.
        published: figures that were published on this dataset, or on the one that it stands for; None without any.
    """

    title: str
    dataset: str
    protocols: Mapping[str, str]
    seeds: int
    lines: tuple[Line, ...]
    differ: tuple[str, ...]
    same: Mapping[str, str]
    published: QuotedTable | None

    @property
    def of_same_dataset(self) -> bool:
        """Whether the published figures are of the dataset itself."""
        return self.published is not None and self.published.dataset == self.dataset


def gather(cells: Sequence[Cell], scores: Scores, problems: Mapping[str, str], title: str) -> Comparison:
    """Returns all that is shown of a comparison.

    Args:
        cells: all cells of the table, those of refused methods too.
        scores: of the finished cells.
        problems: name of a row -> why runs of it are missing.
        title: the command in short.
    """
    dataset = cells[0].configuration.data.name
    spec = find_dataset(dataset)
    published = quoted.find_quoted("celeb_light" if spec.synthetic_size else spec.name)
    rows = list(dict.fromkeys(cell.row for cell in cells))
    found = protocols_of(scores)
    lines = []
    for row in rows:
        own = [cell for cell in cells if cell.row == row]
        finished = [cell for cell in own if cell in scores]
        figures = {(protocol, name): figure(scores, row.name, protocol, name) for protocol in found for name in FIGURES}
        lines.append(
            Line(
                row,
                {key: value for key, value in figures.items() if value is not None},
                len(finished),
                describe_recipe(own[0].configuration, _steps(finished[0])) if finished else {},
                next((costs for cell in finished if (costs := read_costs(cell.folder))), None),
                published.of_variant(row.name) if published else (),
                problems.get(row.name, "" if len(finished) == len(own) else "not finished"),
            )
        )
    differ, same = differing([line.recipe for line in lines if line.recipe])
    described = {protocol.name: protocol.description for protocol in spec.protocols}
    return Comparison(
        title,
        spec.name,
        {name: described.get(name, "") for name in found},
        len({cell.seed for cell in cells}),
        tuple(lines),
        tuple(differ),
        same,
        published,
    )


def _steps(cell: Cell) -> dict[str, int]:
    """Returns the training steps of each phase of a finished run."""
    record = (read_json(cell.folder / RESULTS_FILE) or {}).get("checkpoint", {})
    steps = {name: value for name, value in record.items() if name != "report"}
    return {name: max(value.values()) if isinstance(value, dict) else int(value) for name, value in steps.items()}
