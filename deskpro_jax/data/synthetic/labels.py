"""Numbers of the LIP part labels that the drawing code paints."""

from __future__ import annotations

import numpy as np

BACKGROUND = 0
HAT = 1
HAIR = 2
GLOVE = 3
SUNGLASSES = 4
UPPER = 5
DRESS = 6
COAT = 7
SOCKS = 8
PANTS = 9
JUMPSUIT = 10
SCARF = 11
SKIRT = 12
FACE = 13
LEFT_ARM, RIGHT_ARM = 14, 15
LEFT_LEG, RIGHT_LEG = 16, 17
LEFT_SHOE, RIGHT_SHOE = 18, 19

# LIP has no class for a neck or a bag and leaves both to the background. While drawing they keep numbers of their own,
# because light has to fall on them as on the rest of the person.
NECK = 20
BAG = 21
NOTHING = 255  # a place of a patch that nothing was drawn on


def to_lip(drawn: np.ndarray) -> np.ndarray:
    """Maps labels used while drawing to LIP labels.

    Args:
        drawn: uint8 [height, width], the constants of this module.

    Returns:
        uint8 [height, width] with LIP labels 0 to 19.
    """
    return np.where(drawn > RIGHT_SHOE, BACKGROUND, drawn).astype(np.uint8)
