"""What is in a picture, as arrays: the labels of a data set and the answers of a judge in one form."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mdm.data.sources.scenes.shapes import COLOURS, SHAPES

# As in mdm.data.scenes; relation 0 is "none" (one group of objects).
COUNTS = 4
RELATIONS = 7
WIDTHS = {"colours": len(COLOURS), "shapes": len(SHAPES), "pairs": len(COLOURS) * len(SHAPES)}
CLASSES = {"count": COUNTS, "relation": RELATIONS}
KEYS = (*WIDTHS, *CLASSES)
UNKNOWN = -1


def encode(labels: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """N labels -> int8 sets colours, shapes, pairs [N, width] of 0/1 and classes count, relation [N].

    A picture whose labels describe no scene has -1 everywhere. Counts 1 to 4 are the classes 0 to 3.
    """
    arrays = {key: np.full((len(labels), width), UNKNOWN, np.int8) for key, width in WIDTHS.items()}
    arrays |= {key: np.full(len(labels), UNKNOWN, np.int8) for key in CLASSES}
    for row, found in enumerate(labels):
        if not found.keys() >= set(KEYS):
            continue
        pairs = [colour * WIDTHS["shapes"] + shape for colour, shape in found["pairs"]]
        for key, present in (("colours", found["colours"]), ("shapes", found["shapes"]), ("pairs", pairs)):
            arrays[key][row] = 0
            arrays[key][row, present] = 1
        arrays["count"][row] = found["count"] - 1
        arrays["relation"][row] = found["relation"]
    return arrays
