"""Writes rooms.svg, the picture of docs/architecture.md: `python docs/images/draw_rooms.py`.

The way of a training image is drawn above, that of a query photo below, and the rooms that both pass in between.
"""

from __future__ import annotations

from pathlib import Path

from draw_architecture import BODY, BODY_TINT, FACE, FACE_TINT, INK, SOFT_INK, TEACHER, arrow, box, heads, label, rect

WIDTH, HEIGHT = 1320, 760
BOX_W, BOX_H = 160, 84
COLUMNS = (44, 256, 468, 680, 892, 1104)  # left edge of each column of boxes
TRAIN_Y, SHARED_Y, QUERY_Y = 84, 276, 468  # top of each row of boxes
ORDER_Y = 640
# A room imports only from rooms before it in this list; tests/test_rooms.py holds the imports against the same order.
ROOMS = (
    *("errors", "storage", "runtime", "config", "data", "models", "losses", "methods", "weights", "checkpoints"),
    *("workdir", "evaluation", "train", "embedding", "search", "serving", "tables", "report", "experiment", "cli"),
)


def room(column: int, y: float, title: str, *lines: str, stroke: str = INK) -> str:
    """Returns a room's box: its folder, and what happens there."""
    return box(COLUMNS[column], y, BOX_W, BOX_H, title, *lines, stroke=stroke)


def across(column: int, y: float, text: str, colour: str) -> str:
    """Returns an arrow to the next box of a row, with what it carries."""
    start, end, middle = COLUMNS[column] + BOX_W, COLUMNS[column + 1], y + BOX_H / 2
    return arrow([(start, middle), (end, middle)], colour=colour) + label(
        (start + end) / 2, middle - 8, text, size=11, colour=colour
    )


def down(column: int, shift: float, y: float, end: float, text: str, colour: str, anchor: str = "start") -> str:
    """Returns an arrow from one row to another, with what it carries beside it."""
    x = COLUMNS[column] + BOX_W / 2 + shift
    beside = x + (8 if anchor == "start" else -8)
    return arrow([(x, y), (x, end)], colour=colour) + label(
        beside, (y + end) / 2 + 4, text, size=12, colour=colour, anchor=anchor
    )


def training() -> str:
    """Returns the way of a training image, from photo to checkpoint."""
    row, bottom = TRAIN_Y, TRAIN_Y + BOX_H
    return "".join(
        [
            rect(24, 24, WIDTH - 48, 164, fill=BODY_TINT, stroke=BODY_TINT, radius=14),
            label(COLUMNS[0], 54, "A training image", size=16, colour=BODY, bold=True, anchor="start"),
            room(0, row, "data_prep/", "masks and faces;", "builds the dataset", stroke=BODY),
            across(0, row, "records", BODY),
            room(1, row, "data/", "P × K sampling,", "decoding: the Batch", stroke=BODY),
            across(1, row, "Batch", BODY),
            room(2, row, "train/", "augments on the device,", "gradient, update", stroke=BODY),
            down(2, -56, bottom, SHARED_Y, "images", BODY, "end"),
            down(2, -8, SHARED_Y, bottom, "outputs", BODY),
            arrow([(COLUMNS[2] + BOX_W, row + 26), (COLUMNS[3], row + 26)], colour=BODY),
            arrow([(COLUMNS[3], row + 58), (COLUMNS[2] + BOX_W, row + 58)], colour=BODY),
            label((COLUMNS[2] + BOX_W + COLUMNS[3]) / 2, row + 18, "outputs", size=11, colour=BODY),
            label((COLUMNS[2] + BOX_W + COLUMNS[3]) / 2, row + 74, "loss", size=11, colour=BODY),
            room(3, row, "losses/", "cross-entropy, triplet,", "attention, distillation", stroke=BODY),
            arrow(
                [
                    (COLUMNS[2] + BOX_W / 2, row),
                    (COLUMNS[2] + BOX_W / 2, row - 22),
                    (COLUMNS[4] + BOX_W / 2, row - 22),
                    (COLUMNS[4] + BOX_W / 2, row),
                ],
                colour=BODY,
            ),
            label(COLUMNS[3] + BOX_W / 2, row - 28, "TrainState", size=12, colour=BODY),
            room(4, row, "checkpoints/", "Orbax, checksums,", "retention", stroke=BODY),
            down(4, 0, bottom, SHARED_Y, "files", BODY),
        ]
    )


def shared() -> str:
    """Returns the rooms that training and use have in common."""
    row = SHARED_Y
    return "".join(
        [
            room(1, row, "models/", "layers, backbones,", "heads"),
            across(1, row, "layers", INK),
            room(2, row, "methods/", "one file per method:", "module, streams, recipe"),
            room(3, row, "weights/", "published files,", "in and out"),
            across(3, row, "tensors", INK),
            room(4, row, "workdir/", "config.json, results;", "opens networks"),
            across(4, row, "record", INK),
            room(5, row, "report/", "the page of a run"),
        ]
    )


def query() -> str:
    """Returns the way of a query photo, from file to ranks."""
    row, bottom = QUERY_Y, SHARED_Y + BOX_H
    return "".join(
        [
            rect(24, QUERY_Y - 20, WIDTH - 48, 152, fill=FACE_TINT, stroke=FACE_TINT, radius=14),
            label(COLUMNS[0], row + BOX_H + 34, "A query photo", size=16, colour=FACE, bold=True, anchor="start"),
            room(0, row, "photo", "a file, an array,", "a row of a list", stroke=FACE),
            across(0, row, "pixels", FACE),
            room(1, row, "data/images.py", "reads, turns, resizes,", "on the host", stroke=FACE),
            across(1, row, "batch", FACE),
            room(2, row, "embedding/", "Embedder: parts joined,", "each of unit length", stroke=FACE),
            down(2, -56, row, bottom, "images", FACE, "end"),
            down(2, -8, bottom, row, "outputs", FACE),
            across(2, row, "vectors", FACE),
            room(3, row, "evaluation/", "Similarity, re-ranking;", "protocols, CMC, mAP", stroke=FACE),
            across(3, row, "cosines", FACE),
            room(4, row, "search/", "exact or by index,", "thresholds", stroke=FACE),
            across(4, row, "ranks", FACE),
            room(5, row, "matches", "who it is, how sure", stroke=FACE),
            arrow(
                [
                    (COLUMNS[4] + 40, bottom),
                    (COLUMNS[4] + 40, bottom + 44),
                    (COLUMNS[2] + BOX_W - 14, bottom + 44),
                    (COLUMNS[2] + BOX_W - 14, row),
                ],
                colour=FACE,
            ),
            label(COLUMNS[3] + BOX_W / 2, bottom + 38, "networks, as trained", size=12, colour=FACE),
            arrow(
                [
                    (COLUMNS[3] + BOX_W - 30, row),
                    (COLUMNS[3] + BOX_W - 30, row - 36),
                    (COLUMNS[5] + BOX_W / 2, row - 36),
                    (COLUMNS[5] + BOX_W / 2, bottom),
                ],
                colour=TEACHER,
            ),
            label(COLUMNS[5] - 30, row - 42, "scores, rankings", size=12, colour=SOFT_INK),
        ]
    )


def order() -> str:
    """Returns the rooms in the order of imports."""
    width, gap, per_row = 117, 6, 10
    parts = [
        label(
            COLUMNS[0],
            ORDER_Y,
            "The order of imports: a room imports only from rooms before it",
            bold=True,
            anchor="start",
        )
    ]
    for i, name in enumerate(ROOMS):
        x, y = COLUMNS[0] + (width + gap) * (i % per_row), ORDER_Y + 16 + 42 * (i // per_row)
        parts += [
            rect(x, y, width - 6, 30, fill="#ffffff", stroke="#8c959f", radius=15),
            label(x + (width - 6) / 2, y + 20, name, size=13),
        ]
    return "".join(parts)


def drawing() -> str:
    """Returns the whole picture as SVG text."""
    about = (
        "A training image goes from data_prep to data, train, methods and losses, and ends in checkpoints and workdir. "
        "A query photo goes from data/images.py to embedding, methods, evaluation and search. "
        f"In the order of imports the rooms are {', '.join(ROOMS)}."
    )
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img" font-family="Helvetica, Arial, Liberation Sans, sans-serif">'
    )
    return "\n".join(
        [
            opening,
            f"<title>The rooms of deskpro_jax</title><desc>{about}</desc>",
            f"<defs>{heads()}</defs>",
            rect(1, 1, WIDTH - 2, HEIGHT - 2, fill="#ffffff", stroke="#d0d7de", radius=18),
            training(),
            query(),
            shared(),
            order(),
            "</svg>\n",
        ]
    )


if __name__ == "__main__":
    Path(__file__).with_name("rooms.svg").write_text(drawing(), encoding="utf-8")
