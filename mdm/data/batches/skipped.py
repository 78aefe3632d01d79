"""Which samples training could not use, and why: noted as they are met, by every process, over all restarts."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

KEYS_SHOWN = 100


class SkippedLog:
    """Lines of JSON, one for each sample that was left out; several processes have files of their own."""

    def __init__(self, folder: Path, role: str, rank: int = 0) -> None:
        self._path = folder / f"skipped-{role}-{rank}.jsonl"

    def add(self, number: int, key: str, reason: str, message: str) -> None:
        """Note a sample on lines of its own, so that a line torn by a kill damages no other."""
        line = json.dumps({"number": number, "key": key, "reason": reason, "message": message})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as stream:
            stream.write(f"\n{line}\n")


def skipped(folder: Path, role: str) -> dict[str, Any]:
    """Summarise for a manifest how many samples were left out, by reason, with the first keys."""
    found: dict[int, dict[str, Any]] = {}
    for path in sorted(folder.glob(f"skipped-{role}-*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:  # empty, or torn by a kill: the next process that met it noted it again
                continue
            found[entry["number"]] = entry
    reasons = Counter(entry["reason"] for entry in found.values())
    keys = sorted(entry["key"] for entry in found.values())
    return {"samples": len(found), "reasons": dict(reasons.most_common()), "keys": keys[:KEYS_SHOWN]}
