"""What was measured of the autoencoder whose codes a run is trained on."""

from collections.abc import Callable, Iterator
from typing import Any

from mdm.study.runs import Run

FILE = "autoencoder.json"
Reader = Callable[[str, str], dict[str, Any] | None]


def parts(run: Run, read: Reader) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """Yield the artifact and its numbers: reconstruction, rate, weights, arithmetic; nothing for a run on pictures."""
    for ref in run.stages[-1].latents[:1]:
        found, manifest = read(ref, FILE), read(ref, "manifest.json")
        if found and manifest:
            own = [
                {"metric": f"autoencoder_{key}", "value": manifest[key], "low": None, "high": None}
                for key in ("parameters", "gigaflops")
                if key in manifest
            ]
            yield ref, {"metrics": [*found["metrics"], *own]}
