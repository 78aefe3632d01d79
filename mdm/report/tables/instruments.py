"""How far the measuring instruments can be trusted: real pictures, chance, and noise floors.

Scores come with their frame: `X_real` is what real pictures reach under the same instrument, `X_chance` what
guessing reaches, `X_floor` the distance between two sets of real pictures.
"""

from collections.abc import Iterator
from typing import Any

from mdm.config.recipe_measured import FeaturesRecipe
from mdm.evaluate.metric_names import DESTROYED
from mdm.evaluate.smallest import smallest
from mdm.report.collect import Artifacts
from mdm.report.evidence import Evidence
from mdm.report.metrics import describe, shown
from mdm.report.quantity import Quantity, alone, measured
from mdm.report.tables.render import Cell, Column, Table

EXPECTED = ("density_", "coverage_")  # known of real pictures without measuring
REAL, CHANCE = ("_real", "_floor"), ("_chance",)


def frame(evidence: Evidence, metric: str, protocol: str | None, ends: tuple[str, ...]) -> Quantity | None:
    """What frames a metric, from the first run that was scored: real pictures are the same for all."""
    for end in ends:
        for run in evidence.run_names:
            rows = evidence.rows_of(metric + end, run, protocol)
            if rows:
                return alone(measured(rows[0].value, rows[0].low, rows[0].high))
    return None


def frame_rows(evidence: Evidence, metrics: list[str], protocol: str | None) -> list[dict[str, Cell]]:
    """Table rows "real pictures" and "guessing" under the rows of the runs; of clips also without their motion."""
    rows = []
    still = ((f"real clips, {way}", (f"_{way}",)) for way in DESTROYED)
    for title, ends in (("real pictures", REAL), ("guessing", CHANCE), *still):
        found = {m: shown(m, frame(evidence, m, protocol, ends)) for m in metrics}
        cells = {m: Cell(quantity=q) for m, q in found.items() if q}
        rows += [{"run": Cell(title)} | cells] if cells else []
    return rows


def extractors(evidence: Evidence, artifacts: Artifacts) -> dict[str, str]:
    """The measuring networks behind the scores: {"judge": "judge/...", "clip": "clip/..."}."""
    found: dict[str, str] = {}
    for evaluation in (evaluation for run in evidence.study.runs for evaluation in run.evaluations):
        if features := artifacts.recipe(evaluation.features, FeaturesRecipe):
            found |= {k: v for k, v in features.extractors.items() if isinstance(v, str)}
    return found


def protocols(evidence: Evidence, artifacts: Artifacts) -> dict[str, str]:
    """What exactly was measured under each protocol, as the scores themselves recorded it."""
    found: dict[str, str] = {}
    for evaluation in (evaluation for run in evidence.study.runs for evaluation in run.evaluations):
        recorded = (artifacts.json(evaluation.scores, "scores.json") or {}).get("protocol") or {}
        found[evaluation.protocol] = found.get(evaluation.protocol) or recorded.get("description", "")
    return found


def survey(evidence: Evidence, artifacts: Artifacts) -> dict[str, Any]:
    """Table and sentences for the report's section on the instruments."""
    networks, protocol = extractors(evidence, artifacts), evidence.protocol()
    judged = [m for m in evidence.metrics(protocol) if m.startswith("alignment")]
    notes = [
        *_limits(evidence, protocol),
        *numbers_needed(evidence, artifacts, protocol),
        *clip_notes(evidence, artifacts),
    ]
    origin = " · ".join(networks.values()) or "nothing has been scored yet"
    tables = [_judge_table(evidence, judged, protocol)] if judged else []
    return {"tables": tables, "notes": notes, "provenance": origin}


def _judge_table(evidence: Evidence, judged: list[str], protocol: str | None) -> Table:
    rows = []
    for metric in judged:
        found = {key: frame(evidence, metric, protocol, ends) for key, ends in (("real", REAL), ("chance", CHANCE))}
        cells = {key: Cell(quantity=shown(metric, q)) for key, q in found.items() if q}
        rows.append({"factor": Cell(factor(metric))} | cells)
    columns = [
        Column("factor", "Factor"), Column("real", "Judge on real pictures (%)", True),
        Column("chance", "Guessing (%)", True),
    ]  # fmt: skip
    caption = (
        "How often the judge reads from a held-out real picture what its caption says. A score cannot be "
        "trusted beyond this, and means nothing at the level of guessing."
    )
    return Table("judge", "The judge on real pictures", caption, columns, rows)


def factor(metric: str) -> str:
    """`alignment_colour` -> `colour`."""
    return metric.removeprefix("alignment").strip("_").replace("_", " ") or "all factors"


def _limits(evidence: Evidence, protocol: str | None) -> Iterator[str]:
    """What real pictures reach, under distances and CLIP scores."""
    for metric in evidence.metrics(protocol):
        floor, better = frame(evidence, metric, protocol, ("_floor",)), describe(metric).better
        if floor and better == "higher":
            yield f"{describe(metric).title}: as many other real pictures reach {shown(metric, floor).text()}."
        elif floor:
            yield (
                f"{describe(metric).title}: two sets of real pictures are {floor.text()} apart. "
                "Differences far below that are noise of the instrument."
            )
        real = frame(evidence, metric, protocol, ("_real",))
        if real and metric.startswith(EXPECTED):
            yield f"{describe(metric).title}: of as many other real pictures {shown(metric, real).text()} is expected."
        elif real and not metric.startswith("alignment"):
            own = " with their own captions" if metric.startswith("clip_score") else ""
            yield f"{describe(metric).title}: real pictures{own} reach {shown(metric, real).text()}."


def numbers_needed(evidence: Evidence, artifacts: Artifacts, protocol: str | None) -> Iterator[str]:
    """From how many pictures each metric is sensible, its bias there, and which had fewer, or too few for a number."""
    counts: dict[str, int] = {}
    left_out = {}
    for evaluation in (evaluation for run in evidence.study.runs for evaluation in run.evaluations):
        scores = artifacts.json(evaluation.scores, "scores.json") or {}
        for row in scores.get("metrics", ()) if evaluation.protocol == protocol else ():
            counts[row["metric"]] = min(row["n"], counts.get(row["metric"], row["n"]))
        for row in scores.get("left_out", ()):
            left_out[evaluation.protocol, row["metric"]] = row["why"]
    for metric in evidence.metrics(protocol):
        if known := smallest(metric):
            title, count = describe(metric).title, counts.get(metric, known.fewest)
            few = f" Here there are FEWER: {count}." if count < known.fewest else ""
            yield f"{title}: sensible from {known.fewest} pictures of either kind; bias: {known.bias}.{few}"
    for (place, metric), why in left_out.items():
        yield f"{describe(metric).title}, protocol {place}: not given, {why}."


def clip_notes(evidence: Evidence, artifacts: Artifacts) -> list[str]:
    """How much a CLIP score can mean: how well its model tells captions of real pictures apart."""
    found = list(_retrieval(artifacts, extractors(evidence, artifacts).get("clip")))
    if found:
        found.append(
            "Where that is far from 100 %, a picture's score does not tell its own caption from similar ones: read it "
            "as coarse agreement (is it such a scene, are the colours there), and its order of runs only where the "
            "intervals part."
        )
    return found


def _retrieval(artifacts: Artifacts, clip: str | None) -> Iterator[str]:
    """The CLIP model's own accuracy at finding a real picture's caption."""
    for row in (artifacts.json(clip, "manifest.json") or {}).get("metrics", []):
        name, _, choices = row["metric"].rpartition("_")
        text = alone(measured(row["value"], row["low"], row["high"])).scaled(100).text()
        if name == "clip_retrieval":
            yield f"CLIP model: picks a real picture's caption out of {choices} in {text} % of {row['n']}."
