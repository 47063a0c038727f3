"""Writes architecture.svg, the README's picture of the two streams: `python docs/images/draw_architecture.py`.

Colours are from the Okabe-Ito palette, which colour-blind readers can tell apart, and no meaning hangs
on colour alone: whatever exists in training only has a dashed outline.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

WIDTH, HEIGHT = 1320, 724
INK, SOFT_INK, LINE = "#1b1f24", "#57606a", "#8c959f"
BODY, FACE, TEACHER = "#0072b2", "#d55e00", "#6e7781"
BODY_TINT, FACE_TINT, TEACHER_TINT = "#eef6fb", "#fdf3ec", "#f6f8fa"
DASH = "6 4"
ROW = 84  # height of the boxes of a stream
BODY_Y, STUDENT_Y, TEACHER_Y = 156, 320, 596  # top of each stream's row of boxes
INPUT_X, OSNET_X, CSA_X, LMBN_X, PARTS_X, JOIN_X, SEARCH_X = 44, 228, 420, 622, 852, 1014, 1152


def rich(text: str) -> str:
    """Returns escaped text in which `L_{att}` is set as an italic symbol with a subscript."""
    pieces: list[str] = []
    shift = ""  # brings the baseline back up after a subscript
    for part in re.split(r"(\w_\{[^}]*\})", text):
        symbol = re.fullmatch(r"(\w)_\{([^}]*)\}", part)
        if symbol:
            pieces.append(f'<tspan font-style="italic"{shift}>{symbol[1]}</tspan>')
            pieces.append(f'<tspan dy="4" font-size="75%">{html.escape(symbol[2])}</tspan>')
            shift = ' dy="-4"'
        elif part:
            pieces.append(f"<tspan{shift}>{html.escape(part)}</tspan>" if shift else html.escape(part))
            shift = ""
    return "".join(pieces)


def label(
    x: float, y: float, text: str, *, size: int = 14, colour: str = INK, bold: bool = False, anchor: str = "middle"
) -> str:
    """Returns one line of text whose baseline is at y."""
    style = f'font-size="{size}" fill="{colour}" text-anchor="{anchor}" font-weight="{600 if bold else 400}"'
    return f'<text x="{x}" y="{y}" {style}>{rich(text)}</text>'


def rect(
    x: float, y: float, w: float, h: float, *, fill: str, stroke: str, radius: int = 8, dashed: bool = False
) -> str:
    """Returns a rounded rectangle; dashed marks what exists in training only."""
    dash = f' stroke-dasharray="{DASH}"' if dashed else ""
    return (
        f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="{radius}" fill="{fill}" '
        f'stroke="{stroke}" stroke-width="1.5"{dash}/>'
    )


def box(x: float, y: float, w: float, h: float, title: str, *lines: str, stroke: str, dashed: bool = False) -> str:
    """Returns a white box with a bold title and smaller lines under it, centred vertically."""
    top = y + h / 2 + 5 - 9 * len(lines)
    parts = [rect(x, y, w, h, fill="#ffffff", stroke=stroke, dashed=dashed), label(x + w / 2, top, title, bold=True)]
    parts += [label(x + w / 2, top + 19 + 17 * i, line, size=12, colour=SOFT_INK) for i, line in enumerate(lines)]
    return "".join(parts)


def pill(x: float, y: float, w: float, text: str, *, stroke: str, fill: str = "#ffffff") -> str:
    """Returns a small dashed box of one line: logits or losses, which only training has."""
    return rect(x, y, w, 30, fill=fill, stroke=stroke, radius=15, dashed=True) + label(x + w / 2, y + 20, text, size=13)


def arrow(points: list[tuple[float, float]], *, colour: str = INK, dashed: bool = False) -> str:
    """Returns a line through the points with an arrow head at the last one."""
    path = "M" + " L".join(f"{x} {y}" for x, y in points)
    dash = f' stroke-dasharray="{DASH}"' if dashed else ""
    return (
        f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="1.8" stroke-linejoin="round"{dash} '
        f'marker-end="url(#head-{colour[1:]})"/>'
    )


def heads() -> str:
    """Returns one arrow head for each colour of line."""
    return "".join(
        f'<marker id="head-{colour[1:]}" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" '
        f'orient="auto-start-reverse"><path d="M0 0.8 L10 5 L0 9.2 z" fill="{colour}"/></marker>'
        for colour in (INK, BODY, FACE, TEACHER)
    )


def person(x: float, y: float) -> str:
    """Returns a standing figure, 22 wide and 60 high."""
    return (
        f'<g transform="translate({x} {y})"><circle cx="11" cy="7" r="6.5" fill="#e2b48c"/>'
        f'<path d="M3 16 h16 q3 0 3 4 v15 h-4 v-12 h-1 v14 h-12 v-14 h-1 v12 h-4 v-15 q0 -4 3 -4z" fill="{BODY}"/>'
        '<path d="M5 37 h12 v23 h-4.6 v-17 h-2.8 v17 h-4.6z" fill="#4a5560"/></g>'
    )


def face(x: float, y: float) -> str:
    """Returns a crisp face, 40 wide and 46 high."""
    return (
        f'<g transform="translate({x} {y})"><ellipse cx="20" cy="25" rx="17" ry="21" fill="#e2b48c"/>'
        '<path d="M3 24 q-2 -22 17 -23 q19 1 17 23 q-3 -12 -10 -14 q-14 4 -21 2 q-2 4 -3 12z" fill="#5b4033"/>'
        '<ellipse cx="13.5" cy="24" rx="2.6" ry="1.9" fill="#1b1f24"/>'
        '<ellipse cx="26.5" cy="24" rx="2.6" ry="1.9" fill="#1b1f24"/>'
        '<path d="M10 19.5 q3.5 -2 7 0 M23 19.5 q3.5 -2 7 0" stroke="#5b4033" stroke-width="1.5" fill="none"/>'
        '<path d="M20 25 l-2.4 7 h4.2" stroke="#b5835a" stroke-width="1.4" fill="none"/>'
        '<path d="M14 37.5 q6 4 12 0" stroke="#9c4a3c" stroke-width="2" fill="none"/></g>'
    )


def coarse_face(x: float, y: float) -> str:
    """Returns the same face as a camera far away sees it: 6 x 7 pixels of 6.6 units."""
    tones = {"h": "#5b4033", "s": "#e2b48c", "e": "#8a6a54", "m": "#bf8068", "n": "#cf9f78", "k": "#9a765b"}
    rows = [".hhhh.", "hhhhkh", "kssssk", "sesesn", "ssnsss", "nsmmsn", ".nssn."]
    cells = "".join(
        f'<rect x="{round(6.6 * i, 1)}" y="{round(6.6 * j, 1)}" width="6.8" height="6.8" fill="{tones[tone]}"/>'
        for j, row in enumerate(rows)
        for i, tone in enumerate(row)
        if tone != "."
    )
    return f'<g transform="translate({x} {y})">{cells}</g>'


def cells(x: float, y: float, count: int, colour: str, *, dashed: bool = False) -> str:
    """Returns a row of small squares, one for each part embedding."""
    dash = ' stroke-dasharray="3 2"' if dashed else ""
    return "".join(
        f'<rect x="{x + 15 * i}" y="{y}" width="13" height="22" rx="2" fill="{colour}" fill-opacity="0.28" '
        f'stroke="{colour}"{dash}/>'
        for i in range(count)
    )


def input_box(y: float, picture: str, title: str, detail: str, *, stroke: str, dashed: bool = False) -> str:
    """Returns a stream's input: a small picture at the left and two lines of text."""
    return "".join(
        [
            rect(INPUT_X, y, 144, ROW, fill="#ffffff", stroke=stroke, dashed=dashed),
            picture,
            label(INPUT_X + 58, y + 39, title, bold=True, anchor="start"),
            label(INPUT_X + 58, y + 58, detail, size=12, colour=SOFT_INK, anchor="start"),
        ]
    )


def light_mbn(y: float, *, stroke: str, dashed: bool = False) -> str:
    """Returns the multi-branch network's box."""
    return box(
        LMBN_X, y, 180, ROW, "LightMBN", "seven parts: 2 global,", "3 local, 2 channel", stroke=stroke, dashed=dashed
    )


def body_stream() -> str:
    """Returns the upper stream with the attention's supervision."""
    middle = BODY_Y + ROW / 2
    return "".join(
        [
            rect(24, 24, 962, 236, fill=BODY_TINT, stroke=BODY_TINT, radius=14),
            label(44, 52, "Body stream", size=16, colour=BODY, bold=True, anchor="start"),
            input_box(BODY_Y, person(INPUT_X + 18, BODY_Y + 12), "Body", "384 × 128", stroke=BODY),
            arrow([(INPUT_X + 144, middle), (OSNET_X, middle)]),
            box(OSNET_X, BODY_Y, 150, ROW, "OSNet", "truncated backbone", "features F", stroke=BODY),
            arrow([(OSNET_X + 150, middle), (CSA_X, middle)]),
            box(CSA_X, BODY_Y, 160, ROW, "CSA attention", "map A = σ(W ∗ F + b)", "output F ⊗ A", stroke=BODY),
            arrow([(CSA_X + 160, middle), (LMBN_X, middle)]),
            light_mbn(BODY_Y, stroke=BODY),
            box(OSNET_X - 40, 62, 190, 52, "Clothing mask", "from human parsing", stroke=TEACHER, dashed=True),
            arrow([(OSNET_X + 150, 88), (CSA_X + 50, 88)], colour=TEACHER, dashed=True),
            pill(CSA_X + 50, 73, 60, "L_{att}", stroke=TEACHER),
            arrow([(CSA_X + 80, 103), (CSA_X + 80, BODY_Y)], colour=TEACHER, dashed=True),
            arrow([(LMBN_X + 90, BODY_Y), (LMBN_X + 90, 103)], colour=TEACHER, dashed=True),
            pill(LMBN_X + 18, 73, 144, "L_{ce} + L_{trip}", stroke=TEACHER),
            arrow([(LMBN_X + 180, middle), (PARTS_X, middle)]),
            cells(PARTS_X + 6, middle - 11, 7, BODY),
            label(PARTS_X + 57, middle + 32, "7 × 512", size=13, colour=BODY),
        ]
    )


def student_stream() -> str:
    """Returns the face stream that inference keeps."""
    middle = STUDENT_Y + ROW / 2
    return "".join(
        [
            rect(24, 276, 962, 148, fill=FACE_TINT, stroke=FACE_TINT, radius=14),
            label(44, 304, "Face stream: student", size=16, colour=FACE, bold=True, anchor="start"),
            input_box(STUDENT_Y, coarse_face(INPUT_X + 11, STUDENT_Y + 19), "Face", "as captured", stroke=FACE),
            arrow([(INPUT_X + 144, middle), (OSNET_X, middle)]),
            box(OSNET_X, STUDENT_Y, 150, ROW, "OSNet", "truncated backbone", stroke=FACE),
            arrow([(OSNET_X + 150, middle), (LMBN_X, middle)]),
            light_mbn(STUDENT_Y, stroke=FACE),
            arrow([(LMBN_X + 180, middle), (PARTS_X, middle)]),
            cells(PARTS_X + 6, middle - 11, 7, FACE),
            label(PARTS_X + 57, middle + 32, "7 × 512", size=13, colour=FACE),
        ]
    )


def teacher_stream() -> str:
    """Returns the frozen teacher and the way its knowledge reaches the student."""
    middle = TEACHER_Y + ROW / 2
    centre = LMBN_X + 90
    return "".join(
        [
            rect(24, 552, 800, 148, fill=TEACHER_TINT, stroke=LINE, radius=14, dashed=True),
            label(INPUT_X + 44, 580, "Face stream: teacher", size=16, colour=SOFT_INK, bold=True, anchor="start"),
            label(INPUT_X + 212, 580, "trained first, then frozen", size=13, colour=SOFT_INK, anchor="start"),
            input_box(TEACHER_Y, face(INPUT_X + 11, TEACHER_Y + 19), "Face", "restored", stroke=TEACHER, dashed=True),
            arrow([(INPUT_X + 144, middle), (OSNET_X, middle)], colour=TEACHER, dashed=True),
            box(OSNET_X, TEACHER_Y, 150, ROW, "OSNet", "truncated backbone", stroke=TEACHER, dashed=True),
            arrow([(OSNET_X + 150, middle), (LMBN_X, middle)], colour=TEACHER, dashed=True),
            light_mbn(TEACHER_Y, stroke=TEACHER, dashed=True),
            arrow([(INPUT_X + 30, STUDENT_Y + ROW), (INPUT_X + 30, TEACHER_Y)], colour=TEACHER, dashed=True),
            label(INPUT_X + 44, 484, "face restoration,", size=13, colour=SOFT_INK, anchor="start"),
            label(INPUT_X + 44, 502, "done once beforehand", size=13, colour=SOFT_INK, anchor="start"),
            arrow([(centre, TEACHER_Y), (centre, 536)], colour=TEACHER, dashed=True),
            pill(centre - 70, 506, 140, "teacher logits × 7", stroke=TEACHER),
            arrow([(centre - 70, 521), (centre - 110, 521), (centre - 110, 496)], colour=FACE, dashed=True),
            pill(centre - 140, 466, 60, "L_{fkp}", stroke=FACE),
            arrow([(centre - 110, 466), (centre - 110, 453), (centre - 70, 453)], colour=FACE, dashed=True),
            arrow([(centre, STUDENT_Y + ROW), (centre, 438)], colour=TEACHER, dashed=True),
            pill(centre - 70, 438, 140, "student logits × 7", stroke=FACE),
            arrow([(LMBN_X + 171, STUDENT_Y + ROW), (LMBN_X + 171, 453), (PARTS_X, 453)], colour=TEACHER, dashed=True),
            pill(PARTS_X, 438, 130, "L_{ce} + L_{trip}", stroke=TEACHER),
        ]
    )


def retrieval() -> str:
    """Returns the joined embedding and the search."""
    body, student = BODY_Y + ROW / 2, STUDENT_Y + ROW / 2
    middle = (body + student) / 2
    strip = "".join(
        f'<rect x="{JOIN_X + 38}" y="{middle - 113 + 16 * i}" width="34" height="14" rx="2" '
        f'fill="{colour}" fill-opacity="0.28" stroke="{colour}"/>'
        for i, colour in enumerate([BODY] * 7 + [FACE] * 7)
    )
    return "".join(
        [
            arrow([(PARTS_X + 114, body), (JOIN_X + 36, body)], colour=BODY),
            arrow([(PARTS_X + 114, student), (JOIN_X + 36, student)], colour=FACE),
            strip,
            label(JOIN_X + 55, middle - 146, "Embedding", bold=True),
            label(JOIN_X + 55, middle - 128, "14 × 512", size=13, colour=SOFT_INK),
            label(JOIN_X + 55, middle + 134, "each part of unit length;", size=12, colour=SOFT_INK),
            label(JOIN_X + 55, middle + 150, "zeros where no face is seen", size=12, colour=SOFT_INK),
            arrow([(JOIN_X + 76, middle), (SEARCH_X, middle)]),
            box(SEARCH_X, middle - 46, 144, 92, "Cosine search", "ranks the gallery;", "mAP and CMC", stroke=INK),
        ]
    )


def legend() -> str:
    """Returns the key to solid and dashed lines."""
    x, y = 880, 572
    return "".join(
        [
            rect(x, y, 416, 108, fill="#ffffff", stroke="#d0d7de"),
            rect(x + 20, y + 18, 44, 22, fill="#ffffff", stroke=INK, radius=5),
            arrow([(x + 70, y + 29), (x + 112, y + 29)]),
            label(x + 126, y + 34, "training and inference", anchor="start"),
            rect(x + 20, y + 66, 44, 22, fill="#ffffff", stroke=TEACHER, radius=5, dashed=True),
            arrow([(x + 70, y + 77), (x + 112, y + 77)], colour=TEACHER, dashed=True),
            label(x + 126, y + 82, "training only: gone at inference", anchor="start"),
        ]
    )


def drawing() -> str:
    """Returns the whole picture as SVG text."""
    about = (
        "A body image passes a truncated OSNet, the cloth-irrelevant spatial attention and LightMBN; the captured face "
        "passes a student OSNet and LightMBN. A teacher that sees the restored face guides the student's logits, and "
        "a clothing mask guides the attention, in training only. Both streams' seven part embeddings are joined "
        "for cosine search."
    )
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" font-family="Helvetica, Arial, Liberation Sans, sans-serif">'
    )
    return "\n".join(
        [
            opening,
            f"<title>The two streams of DeSKPro</title><desc>{about}</desc>",
            f"<defs>{heads()}</defs>",
            rect(1, 1, WIDTH - 2, HEIGHT - 2, fill="#ffffff", stroke="#d0d7de", radius=18),
            body_stream(),
            student_stream(),
            teacher_stream(),
            retrieval(),
            legend(),
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    Path(__file__).with_name("architecture.svg").write_text(drawing(), encoding="utf-8")
