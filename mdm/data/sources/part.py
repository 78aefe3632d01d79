"""Which part of a data set something belongs to, training or validation: told by its name alone."""

import hashlib
from typing import Literal

Part = Literal["all", "train", "validation"]


def belongs(name: str, part: Part, validation_every: int) -> bool:
    """Return whether a name is in the part; one in so many is in validation, whatever else there is."""
    if part == "all":
        return True
    drawn = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big")
    return (drawn % validation_every == 0) == (part == "validation")
