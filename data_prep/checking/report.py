"""The outcome of a check, as lines to print: counts, remarks, warnings, then "usable" or the list of what to fix."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from data_prep.checking import judge
from data_prep.checking.examine import Examined, Problem
from data_prep.checking.judge import Count, Duplicate, Matches
from data_prep.checking.recognise import RecognisedFolder
from deskpro_jax.data.image_report import KINDS
from deskpro_jax.data.mask_statistics import MaskSummary

_SHOWN = 10  # names that are printed where there may be many
_COLUMNS = ("split", "images", "identities", "cameras", "outfits", "masks", "faces", "restored faces")
_TITLES = {
    "zero_size": "zero size",
    "bit_depth": "other than 8 or 16 bits per channel",
    "too_small": "too small",
    "heic": "HEIC without pillow-heif",
    "16_bit": "16 bits per channel",
    "excess": "bytes too many",
    "reduced": "large",
    "cmyk": "CMYK",
    "exif_rotated": "EXIF-rotated",
    "label_map": "label maps that do not fit",
    "checksum": "another checksum than listed",
    "name": "names and folders that do not match",
    "record": "records that can't be read",
}


@dataclasses.dataclass
class CheckResult:
    """The outcome of a check.

    Attributes:
        checked: the folder and its dataset.
        images: every examined image.
        counts: numbers of images, identities, ... of each split.
        problems: files that can't be used.
        duplicates: photos with the same bytes.
        matches: whether the labels allow each protocol.
        remarks: lines worth knowing.
        warnings: lines worth looking into, whatever the verdict.
        fix: other things that have to be fixed.
        allowance: the option that the build needs for this dataset; "" for none.
        as_published: whether the dataset is complete as its authors distribute it, so that users cannot fix it.
        masks: statistics of the masks, None where there are none.
        mask_kind: what the masks are read as.
        sheet: the sheet of examples, None where none was drawn.
    """

    checked: RecognisedFolder
    images: list[Examined] = dataclasses.field(default_factory=list)
    counts: list[Count] = dataclasses.field(default_factory=list)
    problems: list[Problem] = dataclasses.field(default_factory=list)
    duplicates: list[Duplicate] = dataclasses.field(default_factory=list)
    matches: list[Matches] = dataclasses.field(default_factory=list)
    remarks: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    fix: list[str] = dataclasses.field(default_factory=list)
    allowance: str = ""
    as_published: bool = False
    masks: MaskSummary | None = None
    mask_kind: str = ""
    sheet: Path | None = None

    @property
    def usable(self) -> bool:
        """Whether there is nothing to fix."""
        return not (self.fix or self.problems or self._duplicates_to_fix())

    def some(self, values: Iterable[object], everything: bool = False) -> str:
        """Returns the first of many values, and how many more there are."""
        listed = list(values)
        shown = listed if everything else listed[:_SHOWN]
        more = f", ... ({len(listed) - len(shown):,} more)" if len(listed) > len(shown) else ""
        return ", ".join(map(str, shown)) + more

    def record(self) -> dict[str, Any]:
        """Returns everything but the images, ready for JSON."""
        return {
            "counts": [count._asdict() for count in self.counts],
            "problems": [problem._asdict() for problem in self.problems],
            "duplicates": [
                {"where": d.where, "contradiction": d.contradiction, "images": [image.name for image in d.images]}
                for d in self.duplicates
            ],
            "protocols": [match._asdict() for match in self.matches],
            "masks": self.masks and {"read_as": self.mask_kind, **self.masks._asdict()},
            "remarks": self.remarks,
            "warnings": [*self.warnings, *self._mask_warnings()],
            "fix": self.fix,
            "needs": self.allowance,
        }

    def lines(self, everything: bool = False) -> list[str]:
        """Returns the report.

        Args:
            everything: prints all names where otherwise the first ten are printed; what to fix is complete anyway.
        """
        guess = f" (guessed {self.checked.guessed}; --dataset overrides it)" if self.checked.guessed else ""
        lines = [f"{self.checked.folder}: {self.checked.spec.name}, {self.checked.layout}{guess}"]
        if self.counts:
            lines += ["", *_table([_COLUMNS, *(_cells(count) for count in self.counts)])]
        lines += self._missing(everything)
        if self.masks:
            lines += ["", f"{self.masks.describe()}; read as {self.mask_kind}"]
        if self.matches:
            lines += ["", "protocols:", *(f"  {match}" for match in self.matches)]
        lines += _titled("remarks", [*self.remarks, *self._photo_remarks(everything)])
        duplicates = self._duplicate_lines(False, everything)
        lines += _titled("warnings", [*self.warnings, *self._mask_warnings(), *duplicates])
        if self.sheet is not None:
            lines += ["", f"examples: {self.sheet}"]
        return [*lines, "", *self._verdict()]

    def _verdict(self) -> list[str]:
        if self.usable:
            return [*([f"to be built with {self.allowance}"] if self.allowance else []), "usable"]
        duplicates = self._duplicate_lines(True, True)
        kinds: dict[str, list[Problem]] = {}
        for problem in sorted(self.problems):
            kinds.setdefault(problem.kind, []).append(problem)
        total = len(self.fix) + len(self.problems) + len(self._duplicates_to_fix())
        lines = [f"not usable, {total:,} thing{'s' * (total != 1)} to fix:", *(_indented(text) for text in self.fix)]
        for kind, problems in sorted(kinds.items(), key=lambda item: -len(item[1])):
            lines += [f"  {title(kind)} ({len(problems):,}):", *(f"    {problem}" for problem in problems)]
        return [*lines, *(_indented(text) for text in duplicates)]

    def _missing(self, everything: bool) -> list[str]:
        """Returns the images without a mask, face or restored face, where other images have one."""
        lines = []
        for field, what in (("has_mask", "mask"), ("has_face", "face"), ("has_restored_face", "restored face")):
            without = [image.name for image in self.images if not getattr(image, field)]
            if self.images and len(without) == len(self.images):
                lines.append(f"no image has a {what}")
            elif without:
                images = f"{len(without):,} image{'s' * (len(without) != 1)}"
                lines.append(f"{images} without a {what}: {self.some(without, everything)}")
        return ["", *lines] if lines else []

    def _mask_warnings(self) -> list[str]:
        """Returns the warnings about the masks as a set."""
        if self.masks is None:
            return []
        sheet = f"the examples in {self.sheet}" if self.sheet else "a sheet of examples, without --no-sheet"
        return self.masks.warnings(self.mask_kind, f"look at {sheet}")

    def _photo_remarks(self, everything: bool) -> list[str]:
        lines = []
        for kind, meaning in KINDS.items():
            names = [image.name for image in self.images if kind in image.remarks]
            if names:
                lines.append(f"{title(kind)} ({len(names):,}, {meaning.remedy}): {self.some(names, everything)}")
        return lines

    def _duplicates_to_fix(self) -> list[Duplicate]:
        """Returns the duplicates that spoil a score or contradict each other, where users can fix them."""
        if self.as_published:
            return []
        return [d for d in self.duplicates if d.where != judge.WITHIN or d.contradiction]

    def _duplicate_lines(self, to_fix: bool, everything: bool) -> list[str]:
        fix = self._duplicates_to_fix()
        chosen = fix if to_fix else [d for d in self.duplicates if d not in fix]
        lines = []
        for where, effect in (
            (judge.TRAIN_AND_TEST, "LEAK: the same bytes in train and in a test split, scores will be too good"),
            (judge.QUERY_AND_GALLERY, "the same bytes in query and gallery, a false match"),
            (judge.WITHIN, "the same bytes several times within a split"),
        ):
            texts = [str(duplicate) for duplicate in chosen if duplicate.where == where]
            if not texts:
                continue
            shown = texts if everything else texts[:_SHOWN]
            more = [f"... ({len(texts) - len(shown):,} more)"] if len(texts) > len(shown) else []
            note = ", as the authors distribute it" if self.as_published and where != judge.WITHIN else ""
            lines.append(f"{effect}{note} ({len(texts):,}):" + "".join(f"\n  {line}" for line in [*shown, *more]))
        return lines


def title(kind: str) -> str:
    """Returns a kind of finding in words."""
    return _TITLES.get(kind, kind.replace("_", " "))


def _titled(head: str, texts: Sequence[str]) -> list[str]:
    return ["", f"{head}:", *(_indented(text) for text in texts)] if texts else []


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())


def _cells(count: Count) -> tuple[str, ...]:
    split, *numbers = count
    return (split, *(f"{number:,}" for number in numbers))


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        right = (cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True))
        lines.append("  ".join((first.ljust(widths[0]), *right)))
    return lines
