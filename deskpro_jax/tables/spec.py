"""What a table consists of: rows, the components that they have, findings to test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.errors import InputError


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: variant of the configuration (`configs/variants.py`).
        label: name in the publication.
        parts: which components of the table it has.
        paper: published R-1 and mAP in percent; None where the table has no such columns.
        needs: (field, row): the field names the workdir of another row with the same seed, which is run first.
        streams: (field, row) likewise, where streams that were trained in other rows are put together, not trained.
        flags: "--config.FIELD=VALUE" for the runs of this row, after those of all runs.
    """

    name: str
    label: str
    parts: tuple[str, ...] = ()
    paper: tuple[float, float] | None = None
    needs: tuple[tuple[str, str], ...] = ()
    streams: tuple[tuple[str, str], ...] = ()
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A finding of the publication: one row scores higher than all of some other rows."""

    text: str
    above: str
    below: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table of runs: a published one that is run again, or a comparison of methods.

    Attributes:
        source: where its figures were published, as the table's legend quotes it.
        components: columns that mark what a row has; name -> name in LaTeX.
        rows: in the order of the publication.
        claims: findings to test.
        fields: fields of the configuration that the rows set, so that nothing else may.
    """

    source: str
    components: dict[str, str]
    rows: tuple[Row, ...]
    claims: tuple[Claim, ...]
    fields: tuple[str, ...]

    def choose(self, names: Sequence[str]) -> tuple[Row, ...]:
        """Returns the rows of these names in the order of the table.

        Raises:
            InputError: a name is unknown, or there is none.
        """
        known = [row.name for row in self.rows]
        for name in names:
            if name not in known:
                raise InputError(f"--rows: no row {name!r}; {did_you_mean(name, known) or f'expected {known}.'}")
        chosen = tuple(row for row in self.rows if row.name in names)
        if not chosen:
            raise InputError(f"--rows is empty; give some of {', '.join(known)}.")
        return chosen
