"""gpu_day.json and gpu_day.md of what benchmarks/gpu_day.sh left in a folder, also of one that was stopped early."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file; a last line that was cut off is left out."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return found


def summary(measured: dict[str, Any]) -> dict[str, Any]:
    """The figures of one case: medians over its rounds."""
    case, rounds = measured["case"], measured["rounds"]
    seconds = statistics.median(statistics.median(r["ours"]["seconds"]) for r in rounds)
    found = {
        **{key: case[key] for key in ("name", "step", "batch", "precision", "device")}, "compile": measured["compile"],
        "seconds": seconds, "images_per_second": case["batch"] / seconds,
        "peak_gib": rounds[-1]["ours"]["peak_bytes"] / 2**30,
    }  # fmt: skip
    if "flops_per_second" in rounds[0]["ours"]:
        speed = statistics.median(r["ours"]["flops_per_second"] for r in rounds)
        found["mfu"] = speed / rounds[-1]["ours"]["matmul_peak"]
    if "theirs" in rounds[0]:
        ratios = [statistics.median(r["ours"]["seconds"]) / statistics.median(r["theirs"]["seconds"]) for r in rounds]
        found["ratio_to_theirs"] = statistics.median(ratios)
    return found


def collected(out: Path) -> dict[str, Any]:
    """Everything in the folder as one object."""
    machine = out / "machine.log"
    return {
        "machine": machine.read_text().strip() if machine.is_file() else "",
        "steps": lines(out / "steps.jsonl"),
        "model": [summary(measured) for measured in lines(out / "model.jsonl")],
        "pictures": sorted(path.name for path in (out / "pictures").glob("*.png*")),
    }


def markdown(day: dict[str, Any]) -> str:
    """The section of benchmarks/README.md."""
    head = ["network", "step", "compile", "batch", "s/step", "images/s", "peak GiB", "MFU", "ours : theirs"]
    rows = [
        [
            m["name"], m["step"], m["compile"], str(m["batch"]), f"{m['seconds']:.3f}", f"{m['images_per_second']:.2f}",
            f"{m['peak_gib']:.2f}", f"{m['mfu']:.1%}" if "mfu" in m else "—",
            f"{m['ratio_to_theirs']:.3f}" if "ratio_to_theirs" in m else "—",
        ]
        for m in day["model"]
    ]  # fmt: skip
    table = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]
    ended = [f"- {s['step']}: {'done' if s['status'] == 0 else 'not done'} in {s['seconds']} s" for s in day["steps"]]
    return "\n".join(["## A GPU", "", "    benchmarks/gpu_day.sh OUT", "", day["machine"], "", *table, "", *ended, ""])


def main() -> None:
    out = Path(sys.argv[1])
    day = collected(out)
    (out / "gpu_day.json").write_text(json.dumps(day, indent=2) + "\n")
    (out / "gpu_day.md").write_text(markdown(day))
    print(markdown(day))


if __name__ == "__main__":
    main()
