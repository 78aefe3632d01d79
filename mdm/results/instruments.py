"""How far the measuring instruments can be trusted: their accuracy on real pictures, chance, and noise floors.

judge.json holds the alignment scores of real test pictures under the names that scores use, `alignment_X` and
`alignment_X_chance`; a clip manifest holds its retrieval accuracy; `fd_X_floor` is the distance between two sets
of real pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mdm.results.collect import Artifacts, Evidence, digest_of
from mdm.results.metrics import EVALUATION, describe
from mdm.results.quantity import Quantity, measured
from mdm.results.render import Cell, Column, Table


@dataclass(frozen=True)
class Factor:
    """What frames an alignment score: the judge's accuracy on real pictures and guessing."""

    real: Quantity | None
    chance: Quantity | None


def extractors(evidence: Evidence, artifacts: Artifacts) -> dict[str, str]:
    """The measuring networks behind the scores: {"judge": "judge/...", "clip": "clip/..."}."""
    found: dict[str, str] = {}
    for run in evidence.study.runs:
        for evaluation in run.evaluations:
            scores = artifacts.json(evaluation.scores, "recipe.json") or {}
            features = artifacts.json(scores.get("features"), "recipe.json") or {}
            found |= {k: v for k, v in features.get("extractors", {}).items() if isinstance(v, str)}
    return found


def factors(evidence: Evidence, artifacts: Artifacts) -> dict[str, Factor]:
    """Frames by alignment metric; {} while no judge is trained."""
    judge = artifacts.json(extractors(evidence, artifacts).get("judge"), "judge.json")
    if judge is None:
        return {}
    rows = {row["metric"]: measured(row["value"], row["low"], row["high"]) for row in judge["metrics"]}
    names = [name for name in rows if describe(name).kind == EVALUATION]
    return {name: Factor(rows[name], rows.get(f"{name}_chance")) for name in names}


def survey(evidence: Evidence, artifacts: Artifacts) -> dict[str, Any]:
    """Tables and sentences for the report's section on the instruments."""
    found = extractors(evidence, artifacts)
    known = factors(evidence, artifacts)
    notes = [*_floors(evidence), *_retrieval(artifacts, found.get("clip"))]
    if not known:
        notes.insert(0, "The judge network has not been trained yet, so nothing is known about its accuracy.")
    origin = (
        " · ".join(f"{kind} {reference}" for kind, reference in sorted(found.items())) or "not trained yet"
    )
    return {"tables": [_judge_table(known)] if known else [], "notes": notes, "provenance": origin}


def _judge_table(known: dict[str, Factor]) -> Table:
    rows = []
    for metric, factor in known.items():
        row = {"factor": Cell(metric.removeprefix("alignment").strip("_").replace("_", " ") or "all factors")}
        row |= {
            k: Cell(quantity=q.scaled(100))
            for k, q in (("real", factor.real), ("chance", factor.chance))
            if q
        }
        rows.append(row)
    columns = [
        Column("factor", "Factor"),
        Column("real", "Judge on real pictures (%)", True),
        Column("chance", "Guessing (%)", True),
    ]
    caption = ("How often the judge names the factor of a held-out real picture. An alignment score cannot be "
               "trusted beyond this, and means nothing at the level of guessing.")  # fmt: skip
    return Table("judge", "The judge on real pictures", caption, columns, rows)


def _floors(evidence: Evidence) -> Iterator[str]:
    """The distance between two sets of real pictures: no model can be expected below it."""
    floors = {row.metric: row for row in evidence.rows if row.metric.endswith("_floor")}
    for metric, row in floors.items():
        quantity = measured(row.value, row.low, row.high)
        title = describe(metric.removesuffix("_floor")).title
        yield f"{title}: two sets of real pictures are {quantity.text()} apart under protocol {row.protocol}; lower is not possible."


def _retrieval(artifacts: Artifacts, clip: str | None) -> Iterator[str]:
    """The CLIP model's own accuracy at finding a real picture's caption."""
    manifest = artifacts.json(clip, "manifest.json") or {}
    for row in manifest.get("metrics", []):
        quantity = measured(row["value"], row["low"], row["high"])
        yield f"CLIP model {digest_of(clip)}: {row['metric'].replace('_', ' ')} on real pictures {quantity.text()} (n = {row['n']})."
