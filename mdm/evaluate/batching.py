"""How the pictures of a protocol are divided: into batches, and into the parts that jobs draw. No torch."""

import math
import re
from collections.abc import Sequence

from mdm.config.sizes import Size, shape
from mdm.files.atomic import ArtifactError

BATCH_IMAGES = 32  # at least
BATCH_PIXELS = 32 * 64**2  # of a level; small pictures are drawn many at a time, which costs a quarter of the time
MOST_IMAGES = 256
PARTS = "parts"  # folder of the parts, beside the archive that is made of them
PART = re.compile(r"(\d+)-(\d+)")


def at_once(sizes: Sequence[Size]) -> int:
    """Return how many pictures of these levels are drawn in one batch."""
    largest = max(math.prod(shape(size)) // 3 for size in sizes)
    return min(max(BATCH_IMAGES, BATCH_PIXELS // largest), MOST_IMAGES)


def whole_batches(images_per_job: int, batch_images: int) -> int:
    """Return the pictures of a part: no fewer than asked for, and whole batches, so that no split changes a batch."""
    return math.ceil(images_per_job / batch_images) * batch_images


def divided(num_images: int, part_images: int) -> list[range]:
    """Return the picture numbers of each part; the last part is what is left."""
    return [range(k, min(k + part_images, num_images)) for k in range(0, num_images, part_images)]


def part_name(ids: range) -> str:
    """Name a part by its first and last picture."""
    return f"{ids.start:07d}-{ids.stop - 1:07d}"


def part_ids(name: str) -> range:
    """Return the picture numbers of a part's name."""
    found = PART.fullmatch(name)
    if not found or int(found[2]) < int(found[1]):
        raise ValueError(f"{name!r} names no part; write its first and last picture, as in 0-1023")
    return range(int(found[1]), int(found[2]) + 1)


def check_part(ids: range, num_images: int, batch_images: int) -> None:
    """Refuse a part that would cut a batch, or that has pictures nobody asked for."""
    if ids.stop > num_images:
        raise ArtifactError(f"there is no picture {ids.stop - 1}: the recipe asks for {num_images}, from 0 on")
    if ids.start % batch_images or (ids.stop % batch_images and ids.stop != num_images):
        low = ids.start // batch_images * batch_images
        high = min(math.ceil(ids.stop / batch_images) * batch_images, num_images)
        raise ArtifactError(
            f"part {ids.start}-{ids.stop - 1} cuts batches of {batch_images} pictures, and in other batches pictures "
            f"are the same up to rounding only; write {low}-{high - 1}"
        )
