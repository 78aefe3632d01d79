"""Precision, recall, density and coverage of 10,000 against 10,000 features of width 2,048: processor time and memory.

    OMP_NUM_THREADS=2 OPENBLAS_NUM_THREADS=2 nice python benchmarks/precision_recall.py [--drawn 10000] [--real 10000]

Writes benchmarks/precision_recall.json. With the intervals, which leave out twenty groups of either side.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np

from mdm.evaluate.manifold import density_coverage, precision_recall

WIDTH, OUT = 2048, Path(__file__).with_suffix(".json")
MOST_SECONDS, MOST_GIB = 180, 4


def features(count: int, seed: int, shift: float) -> np.ndarray:
    """Features that vary in some tens of directions and lie far from zero, as those of networks do."""
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(0).normal(size=(48, WIDTH)).astype(np.float32)
    slow = random.normal(size=(count, 48)).astype(np.float32) + shift
    return slow @ mixing / 7 + 0.2 * random.normal(size=(count, WIDTH)).astype(np.float32) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, value in (("drawn", 10_000), ("real", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    drawn, real = features(asked.drawn, 1, 0.1), features(asked.real, 2, 0.0)
    facts: dict[str, Any] = {
        "drawn": asked.drawn, "real": asked.real, "width": WIDTH, "threads": os.environ.get("OMP_NUM_THREADS"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version(),
    }  # fmt: skip
    for measure in (precision_recall, density_coverage):
        processor, began = time.process_time(), time.monotonic()
        found = measure(drawn, real)
        spent = {"processor_seconds": time.process_time() - processor, "seconds": time.monotonic() - began}
        facts[measure.__name__] = {key: round(value, 1) for key, value in spent.items()}
        facts[measure.__name__]["values"] = [round(one.value, 4) for one in found]
    facts["peak_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    OUT.write_text(json.dumps(facts, indent=1) + "\n")
    print(json.dumps(facts, indent=1))
    most = facts["precision_recall"]["processor_seconds"] / min(2, os.cpu_count() or 1)
    if most > MOST_SECONDS or facts["peak_gib"] > MOST_GIB:
        raise SystemExit(f"more than {MOST_SECONDS} s of two cores, or more than {MOST_GIB} GiB")


if __name__ == "__main__":
    main()
