"""Which samples of finished shards are duplicates: of equal ones the first by (shard, row) stays, whoever made it when.

The records beside the shards are enough, and 24 bytes of memory for each sample.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np

from mdm.data.pictures.duplicates import LOOK_DISTANCE, as_keys, look_alikes, repeated


def left_out(records: Iterable[dict[str, Any]], rule: str) -> tuple[list[list[int]], dict[str, int]]:
    """Return the rows of each shard that are left out (none, files, looks), and how many because of which rule."""
    sizes, keys, looks = [], [np.empty((0, 2), dtype="<u8")], [np.empty(0, dtype=np.uint64)]
    for record in records:
        sizes.append(record["samples"])
        if rule != "none":
            keys.append(as_keys(record["hashes"]))
        if rule == "looks":
            looks.append(np.array([int(text, 16) for text in record["looks"]], dtype=np.uint64))
    if rule == "none":
        return [[] for _ in sizes], {}
    files = repeated(np.concatenate(keys))
    gone, counts = files, {"files": int(files.sum())}
    if rule == "looks":
        gone = look_alikes(np.concatenate(looks), LOOK_DISTANCE) | files
        counts["looks"] = int(gone.sum()) - counts["files"]
    ends = np.cumsum(sizes)[:-1]
    return [np.flatnonzero(part).tolist() for part in np.split(gone, ends)], counts
