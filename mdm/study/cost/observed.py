"""How fast trainings and drawings went on this disk: what `mdm plan` believes before any calibration."""

import statistics
from pathlib import Path

from mdm.files.atomic import read_json
from mdm.study.cost.speeds import devices, passes, work
from mdm.study.stage_files import last_status
from mdm.study.study import Study


def seconds(study: Study, results: Path, ref: str) -> float | None:
    """Return what all of an artifact takes, judged by itself: what it took, or at the speed that it has or had."""
    manifest = results / ref / "manifest.json"
    if manifest.is_file():
        return read_json(manifest)["seconds"]
    speed = last_status(results / ref).get("images_per_second")
    return study.recipe(ref).num_images / speed if speed else None


def speeds(study: Study, results: Path) -> dict[str, float]:
    """Map the key of each work to the seconds that one device needed per picture (of a call, when drawing)."""
    found: dict[str, list[float]] = {}
    for ref in study.of_kind("train", "samples"):
        if passes(study, ref) and (taken := seconds(study, results, ref)) is not None:
            each = taken * devices(study, ref) / passes(study, ref)
            found.setdefault(work(study, ref).key, []).append(each)
    return {key: statistics.median(times) for key, times in found.items()}
