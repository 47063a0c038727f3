"""Published figures of methods on cloth-changing datasets, as data: each with its protocol and where it is quoted from.

Nothing here was measured by this package. A protocol or a choice of checkpoint that a source does not state is "not
stated"; what follows from the figures themselves, or from a published code, says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from deskpro_jax.config.suggestions import did_you_mean
from deskpro_jax.errors import InputError

NOT_STATED = "not stated"


class Scores(NamedTuple):
    """Published figures in percent; None is not reported."""

    r1: float
    r5: float | None = None
    map: float | None = None


@dataclass(frozen=True)
class Method:
    """A published method.

    Attributes:
        name: as papers call it.
        venue: where and when it was published.
        variants: of the configuration that train it here, the usual one first; () where there is none.
        checkpoint: which checkpoint its figures are of, as far as it is known.
    """

    name: str
    venue: str
    variants: tuple[str, ...] = ()
    checkpoint: str = NOT_STATED


class QuotedRow(NamedTuple):
    """Figures of a method by setting of the table, with their protocol and source."""

    method: Method
    scores: Mapping[str, Scores]
    protocol: str
    source: str


@dataclass(frozen=True)
class QuotedTable:
    """Published figures on one dataset.

    Attributes:
        dataset: name of its `DatasetSpec`.
        title: name of the dataset in papers.
        settings: columns that the figures stand under; ("",) where there is one setting.
        rows: the figures, in the order of the paper's table, and later ones after them.
        remarks: what is known of the protocols.
    """

    dataset: str
    title: str
    settings: tuple[str, ...]
    rows: tuple[QuotedRow, ...]
    remarks: tuple[str, ...] = ()

    def of_variant(self, variant: str) -> tuple[QuotedRow, ...]:
        """Returns the rows of the method that a variant of the configuration trains."""
        return tuple(row for row in self.rows if variant in row.method.variants)


_BEST_ON_TEST = "best on the test set"
_HACNN = Method("HACNN", "CVPR 2018", ("hacnn", "hacnn_triplet"))
_PCB = Method("PCB", "ECCV 2018", ("pcb", "pcb_p4", "pcb_torchreid"))
_MGN = Method("MGN", "ACM MM 2018", ("mgn", "mgn_paper"))
_LMBN = Method("LightMBN", "ICIP 2021", ("lmbn", "lmbn_r"))
_CAPS = Method("ReIDCaps", "TCSVT 2020", ("reidcaps",))
_CAPS_PLUS = Method("ReIDCaps+", "TCSVT 2020", ("reidcaps_plus",))
_YANG = Method("Yang et al.", "TPAMI 2021")
_CASE = Method("CASE-Net", "WACV 2021")
_AFD = Method("AFD-Net", "IJCAI 2021")
_RCSA = Method("RCSANet", "ICCV 2021")
_FSAM = Method("FSAM", "CVPR 2021")
_IRA = Method("IRANet", "Image and Vision Computing 2022")
_SPS = Method("Shu et al.", "IEEE SPL 2021", ("sps",), f"{_BEST_ON_TEST} (its code)")
_DESKPRO = Method("DeSKPro", "ICIP 2022", ("deskpro",), "best of each stream on the test set (its code)")
_STAR = Method("DeSKPro*", "ICIP 2022", ("deskpro_star",), _DESKPRO.checkpoint)
_CAL = Method("CAL", "CVPR 2022", ("cal", "cal_last"), f"{_BEST_ON_TEST} (its code)")
_AIM = Method("AIM", "CVPR 2023", ("aim",))
_FIRE = Method("FIRe", "IEEE TIFS 2024", ("fire",), f"{_BEST_ON_TEST} (its code)")
_CSSC = Method("CSSC", "ICASSP 2025", ("cssc",), f"{_BEST_ON_TEST} (its code)")
METHODS = (
    *(_HACNN, _PCB, _MGN, _LMBN, _CAPS, _CAPS_PLUS, _YANG, _CASE, _AFD, _RCSA, _FSAM, _IRA, _SPS, _DESKPRO, _STAR),
    *(_CAL, _AIM, _FIRE, _CSSC),
)

_TABLE_1 = "DeSKPro (Wu et al., ICIP 2022), Table 1"
_TABLE_2 = "DeSKPro (Wu et al., ICIP 2022), Table 2"
_TABLE_3 = "DeSKPro (Wu et al., ICIP 2022), Table 3"
_CAPS_TABLE = "ReIDCaps (Huang et al., TCSVT 2020), Table VII, and its repository; also in DeSKPro's Table 1"
_CSSC_TABLE = "CSSC (Wang et al., arXiv 2405.16597), Table II"
_AIM_README = "AIM, README of its repository: figures of the paper"
_AIM_RERUN = "AIM, README of its repository: figures of the repository"
_FIRE_README, _CSSC_README = (f"{name}, README of its repository" for name in ("FIRe", "CSSC"))

_CAPS_RULE = "first digit of the image number as the camera; average precision by trapezoids (its code)"
_FIRE_RULE = "running numbers as cameras, which remove the gallery image of the query's position (its code)"

# What is known of the protocols.
_CELEB_RULES = (
    "The dataset has no cameras. A number of the image stands in for one: read as a whole it removes nothing from a"
    " ranking, read as its first digit (a widely copied rule) it removes correct images. DeSKPro's Table 1 does not say"
    " which of the two its figures have."
)
_TRAPEZOIDS = (
    "An average precision by trapezoids is never higher than the usual one, the mean of the precisions at the correct"
    " images."
)
_PRCC_RULES = (
    "Single-shot: the gallery has one random image of each person, and figures are the mean of ten draws, as in PRCC's"
    " own paper. Multi-shot: it has every image of camera A. With one correct image in the gallery an average precision"
    " is 1 / rank, so that a single-shot mAP is never below R-1: rows with an mAP below R-1 are multi-shot. Rows"
    " without an mAP are most likely single-shot. The two do not compare, and DeSKPro's Table 2 mixes them."
)
_LTCC_RULES = (
    "Both settings remove images of the query's person and camera from its ranking (protocol `general` here);"
    " clothes-changing also those of its person in the same clothes (`cc`)."
)


def _celeb(rows: tuple[tuple[Method, Scores], ...]) -> tuple[QuotedRow, ...]:
    return tuple(QuotedRow(method, {"": scores}, NOT_STATED, _TABLE_1) for method, scores in rows)


CELEB_LIGHT = QuotedTable(
    "celeb_light",
    "Celeb-reID-light",
    ("",),
    (
        *_celeb(
            (
                (_HACNN, Scores(16.2, None, 11.5)),
                (_MGN, Scores(21.5, None, 13.9)),
                (_AFD, Scores(22.2, 51.0, 11.3)),
                (_LMBN, Scores(32.9, 67.0, 18.8)),
                (_CAPS_PLUS, Scores(33.5, 63.3, 19.0)),
                (_RCSA, Scores(46.6, None, 24.4)),
                (_CASE, Scores(35.1, 66.7, 20.4)),
                (_IRA, Scores(46.2, 72.7, 25.4)),
                (_DESKPRO, Scores(52.0, 81.6, 29.8)),
            )
        ),
        QuotedRow(_STAR, {"": Scores(53.7, None, 30.9)}, NOT_STATED, _TABLE_3),
    ),
    (_CELEB_RULES,),
)

CELEB = QuotedTable(
    "celeb",
    "Celeb-reID",
    ("",),
    (
        *_celeb(
            (
                (_HACNN, Scores(47.6, None, 9.5)),
                (_MGN, Scores(49.0, None, 10.8)),
                (_AFD, Scores(52.1, 66.1, 10.6)),
                (_LMBN, Scores(57.3, 71.6, 14.3)),
            )
        ),
        QuotedRow(_CAPS_PLUS, {"": Scores(63.0, 76.3, 15.8)}, _CAPS_RULE, _CAPS_TABLE),
        *_celeb(
            (
                (_RCSA, Scores(65.3, None, 17.5)),
                (_CASE, Scores(66.4, 78.1, 18.2)),
                (_IRA, Scores(64.1, 78.7, 19.0)),
                (_DESKPRO, Scores(68.6, 82.3, 22.7)),
            )
        ),
        QuotedRow(_CAPS, {"": Scores(51.2, 65.4, 9.8)}, NOT_STATED, _CSSC_TABLE),
        QuotedRow(_FIRE, {"": Scores(64.0, 78.8, 18.2)}, _FIRE_RULE, _FIRE_README),
        QuotedRow(_CSSC, {"": Scores(64.5, 78.1, 17.3)}, _FIRE_RULE, _CSSC_README),
    ),
    (_CELEB_RULES, _TRAPEZOIDS),
)

_CROSS, _SAME = "cross clothes", "same clothes"
_MULTI = "multi-shot (it has mAP below R-1)"
_SINGLE = "not stated; without an mAP most likely single-shot"


def _prcc(method: Method, cross: Scores, same: Scores, protocol: str = _SINGLE, source: str = _TABLE_2) -> QuotedRow:
    return QuotedRow(method, {_CROSS: cross, _SAME: same}, protocol, source)


PRCC = QuotedTable(
    "prcc",
    "PRCC",
    (_CROSS, _SAME),
    (
        _prcc(_HACNN, Scores(21.8), Scores(82.5)),
        _prcc(_PCB, Scores(22.9), Scores(86.9)),
        _prcc(_YANG, Scores(34.4), Scores(64.2)),
        _prcc(_CASE, Scores(39.5), Scores(71.2)),
        _prcc(_AFD, Scores(42.8), Scores(95.7)),
        _prcc(_RCSA, Scores(50.2, None, 48.6), Scores(100.0, None, 97.2), _MULTI),
        _prcc(_LMBN, Scores(50.5, None, 51.2), Scores(100.0, None, 98.9), _MULTI),
        _prcc(_FSAM, Scores(54.5), Scores(98.8)),
        _prcc(_IRA, Scores(54.9, None, 53.0), Scores(99.7, None, 97.8), _MULTI),
        _prcc(_SPS, Scores(65.8, None, 61.2), Scores(99.5, None, 96.7), "multi-shot (its code)"),
        _prcc(_DESKPRO, Scores(74.0, None, 66.3), Scores(99.6, None, 96.6), _MULTI),
        _prcc(_AIM, Scores(57.9, None, 58.3), Scores(100.0, None, 99.9), "multi-shot (its code)", _AIM_README),
        _prcc(_AIM, Scores(58.2, None, 58.0), Scores(100.0, None, 99.8), "multi-shot (its code)", _AIM_RERUN),
        _prcc(_FIRE, Scores(65.0, None, 63.1), Scores(100.0, None, 99.5), "multi-shot (its code)", _FIRE_README),
        _prcc(_CSSC, Scores(65.5, None, 63.0), Scores(100.0, None, 99.1), "multi-shot (its code)", _CSSC_README),
    ),
    (_PRCC_RULES,),
)

_CHANGING, _STANDARD = "clothes-changing", "standard"


def _ltcc(method: Method, changing: Scores, standard: Scores, source: str) -> QuotedRow:
    return QuotedRow(
        method, {_CHANGING: changing, _STANDARD: standard}, "as `cc` and `general` here (its code)", source
    )


LTCC = QuotedTable(
    "ltcc",
    "LTCC",
    (_CHANGING, _STANDARD),
    (
        _ltcc(_AIM, Scores(40.6, None, 19.1), Scores(76.3, None, 41.1), _AIM_README),
        _ltcc(_AIM, Scores(40.8, None, 19.2), Scores(75.9, None, 41.7), _AIM_RERUN),
        _ltcc(_FIRE, Scores(44.6, None, 19.1), Scores(75.9, None, 39.9), _FIRE_README),
        _ltcc(_CSSC, Scores(43.6, None, 18.6), Scores(78.1, None, 40.2), _CSSC_README),
    ),
    (_LTCC_RULES,),
)

DEEPCHANGE = QuotedTable(
    "deepchange",
    "DeepChange",
    ("",),
    (
        QuotedRow(
            _FIRE, {"": Scores(57.9, None, 20.0)}, "images of the query's tracklet removed (its code)", _FIRE_README
        ),
    ),
)
LAST = QuotedTable(
    "last",
    "LaST",
    ("",),
    (QuotedRow(_FIRE, {"": Scores(75.0, None, 32.2)}, "nothing removed (its code)", _FIRE_README),),
)
MEVID = QuotedTable(
    "mevid",
    "MEVID",
    ("",),
    (
        QuotedRow(
            Method(
                "CAL (video form)",
                "CVPR 2022",
            ),
            {"": Scores(52.5, None, 27.1)},
            NOT_STATED,
            "MEVID, README of its repository",
        ),
    ),
)
TABLES = (CELEB_LIGHT, CELEB, PRCC, LTCC, DEEPCHANGE, LAST, MEVID)


def find_quoted(dataset: str) -> QuotedTable | None:
    """Returns the published figures on a dataset, None where there are none."""
    return next((table for table in TABLES if table.dataset == dataset), None)


def require_quoted(dataset: str) -> QuotedTable:
    """Returns the published figures on a dataset.

    Raises:
        InputError: there are none; near matches are named.
    """
    names = [table.dataset for table in TABLES]
    name = dataset.lower().replace("-", "_")
    table = find_quoted(name) or find_quoted(name.replace("reid_", "").removesuffix("_reid"))
    if table is None:
        hint = did_you_mean(name, names) or f"there are {', '.join(names)}."
        raise InputError(f"no published figures on {dataset!r}; {hint}")
    return table
