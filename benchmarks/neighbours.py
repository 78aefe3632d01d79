"""Exact nearest neighbours of 10,000 pictures among 50,000 of 32 px, beside a plain torch.cdist, each in a process.

    python benchmarks/neighbours.py [--threads 2] [--rounds 3] [--drawn 10000] [--known 50000]

Writes benchmarks/neighbours.json: processor seconds, seconds by the clock and the peak of memory of each, alternating,
and how many of the two nearest distances of torch.cdist are another number than the exact one. Pictures are smooth
noise, some drawn ones near copies of others.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

SIDE, OUT = 32, Path(__file__).with_suffix(".json")
WAYS = ("exact", "exact-50", "cdist")


def pictures(count: int, seed: int) -> np.ndarray:
    """Colours that change slowly over a picture, and some noise on them, uint8 [N, 32, 32, 3]."""
    random, found = np.random.default_rng(seed), np.empty((count, SIDE, SIDE, 3), np.uint8)
    for first in range(0, count, 1000):  # little memory beside the pictures themselves
        part = found[first : first + 1000]
        coarse = random.integers(0, 256, (len(part), 4, 4, 3), dtype=np.int16).repeat(8, axis=1).repeat(8, axis=2)
        noise = random.integers(-20, 21, part.shape, dtype=np.int16)
        part[...] = np.clip(coarse + noise, 0, 255)
    return found


def measure(way: str, drawn_count: int, known_count: int) -> dict[str, Any]:
    """Find the nearest of all drawn pictures in this process; what it took, and the two nearest distances."""
    drawn, known = pictures(drawn_count, 0), pictures(known_count, 1)
    drawn[::10] = np.minimum(known[: len(drawn[::10])], 254) + 1
    if way == "cdist":
        import torch

    before, began = time.process_time(), time.monotonic()
    if way == "cdist":
        a, b = (torch.from_numpy(side.reshape(len(side), -1)).float() for side in (drawn, known))
        squared = torch.cdist(a, b).topk(2, largest=False).values.double().square().round().long().numpy()
    else:
        from mdm.evaluate.neighbours import neighbours

        squared = neighbours(drawn, [known], 50 if way == "exact-50" else 2, gpu=False).squared[:, :2]
    spent = {"processor_seconds": time.process_time() - before, "seconds": time.monotonic() - began}
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    np.save(Path(tempfile.gettempdir(), f"neighbours-{way}.npy"), squared)
    return {**{key: round(value, 2) for key, value in spent.items()}, "peak_gib": round(peak, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=WAYS)
    for name, value in (("threads", 2), ("rounds", 3), ("drawn", 10_000), ("known", 50_000)):
        parser.add_argument(f"--{name}", type=int, default=value)
    asked = parser.parse_args()
    if asked.way:
        print(json.dumps(measure(asked.way, asked.drawn, asked.known)))
        return
    threads = {key: str(asked.threads) for key in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(asked.rounds):
        for way in WAYS:
            sizes = ["--drawn", str(asked.drawn), "--known", str(asked.known)]
            command = [sys.executable, __file__, "--way", way, *sizes]
            done = subprocess.run(command, env=os.environ | threads, capture_output=True, text=True, check=True)
            found[way].append(json.loads(done.stdout.splitlines()[-1]))
            print(way, found[way][-1], flush=True)
    exact, rounded = (np.load(Path(tempfile.gettempdir(), f"neighbours-{way}.npy")) for way in ("exact", "cdist"))
    facts = {
        "drawn": asked.drawn, "known": asked.known, "pixels": SIDE, "threads": asked.threads,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores", "python": platform.python_version(),
        "share_of_rounded_squared_distances_that_differ": float((exact != rounded).mean()), "rounds": found,
    }  # fmt: skip
    OUT.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
