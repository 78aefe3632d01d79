"""SVG -> pixels at any size, the same on every machine of one processor family: no system fonts, no files."""

import io

import numpy as np
from PIL import Image

# Without it every drawing whose size is written in points or millimetres fails.
DOTS_PER_INCH = 96.0
WHITE = 255
BROKEN, BLANK = "broken drawing", "blank drawing"


def draw(svg: str, side: int) -> np.ndarray | str:
    """Draw the whole drawing centred on white, uint8 [side, side, 3]; or say why there is no picture."""
    import resvg_py

    try:
        data = resvg_py.svg_to_bytes(
            svg_string=svg, width=side, height=side, dpi=DOTS_PER_INCH, background="#ffffff", skip_system_fonts=True
        )
    except ValueError:  # what the renderer raises for everything that is wrong with a drawing
        return BROKEN
    with Image.open(io.BytesIO(data)) as opened:
        pixels = np.asarray(opened.convert("RGB"))[:side, :side]  # the renderer rounds a side up by one at times
    return _centred(pixels, side) if np.ptp(pixels) else BLANK


def _centred(pixels: np.ndarray, side: int) -> np.ndarray:
    """Put pixels on a white square; the renderer keeps proportions, so one side may be shorter."""
    height, width = pixels.shape[:2]
    square = np.full((side, side, 3), WHITE, np.uint8)
    top, left = (side - height) // 2, (side - width) // 2
    square[top : top + height, left : left + width] = pixels
    return square
