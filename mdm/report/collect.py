"""From artifact folders to one tidy table, metrics.csv, and a list of what is not there yet.

`images` and `seconds` of a row are the training pictures and training seconds behind the weights it belongs
to, all stages up to that one added up. So every metric can be drawn against either cost.
"""

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
import pandas as pd

from mdm.config.recipe import SamplesRecipe
from mdm.config.recipe_base import Recipe
from mdm.evaluate.intervals import mean_with_interval
from mdm.evaluate.metric_names import EMM
from mdm.files.atomic import ArtifactError, read_json, write_atomic, write_json
from mdm.report import audited, autoencoders, cascades, onset
from mdm.report.crossing import crossings
from mdm.report.quantity import Quantity, alone, measured
from mdm.study.runs import Evaluation, Run, Stage
from mdm.study.study import Study

Kind = TypeVar("Kind", bound=Recipe)
Line = TypeVar("Line")  # of a CSV: Row or Left
GROUPS = "groups.csv"  # stands beside metrics.csv
EXCESS = "excess"  # what is drawn for the loss beyond the optimum: noises of training pictures
LOSS_TAIL = 0.1  # the training loss of a stage is the mean over this last share of its history


@dataclass(frozen=True)
class Row:
    """One measured number; the fields are the columns of metrics.csv."""

    run: str
    stage: str
    seed: int
    metric: str
    value: float
    low: float | None
    high: float | None
    protocol: str
    images: int
    seconds: float
    digest: str


@dataclass(frozen=True)
class Left:
    """A score without each group of pictures in turn: a row of groups.csv, from which errors of differences follow."""

    run: str
    seed: int
    metric: str
    protocol: str
    drawn: str
    without: str
    without_real: str = ""


COLUMNS = tuple(f.name for f in fields(Row))
DTYPES = {str: str, int: int, float: float, float | None: float}


class Artifacts:
    """Reads files of artifact folders; what is not there is None, what is damaged is an error."""

    def __init__(self, results: Path) -> None:
        self.root = Path(results)

    def json(self, reference: str | None, name: str) -> Any | None:
        path = self.root / reference / name if reference else None
        return read_json(path) if path is not None and path.exists() else None

    def recipe(self, reference: str | None, kind: type[Kind]) -> Kind | None:
        """Read the typed recipe of an artifact that was begun."""
        content = self.json(reference, "recipe.json")
        return kind.of(content, f"{reference}/recipe.json") if content is not None else None

    def path(self, reference: str, name: str) -> Path | None:
        path = self.root / reference / name
        return path if path.exists() else None

    def guidance(self, run: Run, protocol: str | None) -> float | None:
        """The guidance weight a run was sampled with, from the recipe of its pictures."""
        samples = next((e.samples for e in run.evaluations if e.protocol == protocol), None)
        recipe = self.recipe(samples, SamplesRecipe)
        return recipe.sample.guidance if recipe else None

    def history(self, reference: str) -> list[dict[str, Any]]:
        """The lines of a stage's history.jsonl, [] when there is none."""
        path = self.path(reference, "history.jsonl")
        lines = path.read_text().splitlines() if path else []
        try:
            return [json.loads(line) for line in lines if line.strip()]
        except json.JSONDecodeError as error:
            raise ArtifactError(
                f"{path} is not valid JSON lines ({error}); delete the folder and train again"
            ) from None


def digest_of(reference: str) -> str:
    return reference.rpartition("-")[2]


def final_validation(history: list[dict[str, Any]]) -> dict[str, Quantity]:
    """The last held-out loss by resolution, {} when none was measured; with an interval if it was drawn repeatedly."""
    last = next((line for line in reversed(history) if line.get("validation")), {})
    draws = last.get("validation_draws") or {}
    found = {}
    for name, loss in last.get("validation", {}).items():
        values = draws.get(name, [loss])
        found[name] = alone(measured(*mean_with_interval(np.array(values)) if len(values) > 1 else (loss, None, None)))
    return found


def collect_groups(study: Study, results: Path) -> Iterator[Left]:
    """What every score would be without each group of pictures."""
    artifacts = Artifacts(results)
    for run in study.runs:
        sources = [(e.scores, "scores.json", e.protocol, e.protocol) for e in run.evaluations if e.scores]
        # No protocol, and not the pictures of one: noised pictures of the training set.
        sources.append((run.excess, "excess.json", "", EXCESS))
        sources += [(run.audit.artifact, audited.FILE, "", run.audit.protocol)] if run.audit else []
        for ref, name, protocol, drawn in sources:
            scores = artifacts.json(ref, name)
            for row in scores["metrics"] if scores else ():
                if row.get("without"):
                    left = (" ".join(map(repr, row.get(key, ()))) for key in ("without", "without_real"))
                    yield Left(run.name, run.seed, row["metric"], protocol, drawn, *left)


def collect(study: Study, results: Path) -> tuple[list[Row], list[dict[str, Any]]]:
    """Every number the study has so far, and what is missing."""
    artifacts, rows, missing = Artifacts(results), [], []
    for run in study.runs:
        images, seconds, gigaflops, weights = 0, 0.0, 0.0, {}
        for stage in run.stages:
            manifest = artifacts.json(stage.artifact, "manifest.json")
            images += stage.num_images
            if manifest is None:
                missing.append(_absent(run, stage.artifact, f"training stage {stage.name}", ""))
                continue
            seconds += manifest.get("seconds", 0.0)
            gigaflops += manifest.get("gigaflops", math.nan)  # stages of an older commit did not count them
            cost = {"images": images, "seconds": round(seconds, 3), "digest": digest_of(stage.artifact)}
            weights[stage.name] = manifest.get("parameters")
            facts = {"parameters": cascades.parameters(stage, weights), "train_gigaflops": gigaflops}
            rows += _stage_rows(run, stage, facts, artifacts.history(stage.artifact), cost)
        for evaluation in run.evaluations:
            _collect_evaluation(artifacts, run, evaluation, images, round(seconds, 3), rows, missing)
        rows += _own_rows(artifacts, run, images, round(seconds, 3))
        missing += [_absent(run, ref, what, "") for ref, what in audited.absent(run, artifacts.json)]
        if run.excess and artifacts.json(run.excess, "excess.json") is None:
            missing.append(_absent(run, run.excess, "loss beyond the optimum", ""))
        missing += _absent_points(artifacts, run)
    if study.theory and artifacts.json(study.theory, "theory.json") is None:
        missing.append(_absent(study.runs[0], study.theory, "why the optimum copies", ""))
    return [*rows, *_crossings(study, rows)], missing


def _crossings(study: Study, rows: Sequence[Row]) -> Iterator[Row]:
    """The number of training pictures up to which each curve copies; infinite where that is outside of its grid."""
    for curve in study.emm.values():
        for seed, found in crossings(curve, rows).items():
            yield Row(curve.name, "", seed, EMM, found.last, found.low, found.high, "", 0, 0.0, "")


def _own_rows(artifacts: Artifacts, run: Run, images: int, seconds: float) -> Iterator[Row]:
    """What belongs to no protocol: the loss beyond the optimum, what audits found, and what an autoencoder reaches."""
    coded = autoencoders.parts(run, artifacts.json)
    excess = (run.excess, artifacts.json(run.excess, "excess.json"))
    for ref, found in excess, *audited.parts(run, artifacts.json), *onset.parts(run, artifacts.json), *coded:
        for row in found["metrics"] if ref and found else ():
            yield Row(
                run.name, run.stages[-1].name, run.seed, row["metric"], row["value"], row["low"], row["high"], "",
                images, seconds, digest_of(ref),
            )  # fmt: skip


def _absent_points(artifacts: Artifacts, run: Run) -> Iterator[dict[str, Any]]:
    """What curves over training lack (mdm/report/curves.py)."""
    for point in (point for point in run.points if point.evaluation not in run.evaluations):
        scores = point.evaluation.scores
        if scores and artifacts.json(scores, "scores.json") is None:
            what = f"scores of stage {point.stage} at {point.images} images"
            yield _absent(run, scores, what, point.evaluation.protocol)


def _absent(run: Run, artifact: str, what: str, protocol: str) -> dict[str, Any]:
    return {"run": run.name, "seed": run.seed, "protocol": protocol, "what": what, "artifact": artifact}


def _stage_rows(
    run: Run, stage: Stage, facts: dict[str, Any], history: list[dict[str, Any]], cost: dict[str, Any]
) -> Iterator[Row]:
    values: dict[str, float | Quantity | None] = {
        "parameters": facts["parameters"],
        "train_images": cost["images"],
        "train_gigaflops": None if math.isnan(facts["train_gigaflops"]) else facts["train_gigaflops"],
        "train_seconds": cost["seconds"],
    }
    speeds = [line["images_per_second"] for line in history if line.get("images_per_second")]
    values["images_per_second"] = statistics.median(speeds) if speeds else None
    losses = [line["loss"] for line in history if "loss" in line]
    tail = losses[-max(1, round(LOSS_TAIL * len(losses))) :]
    values["train_loss"] = statistics.fmean(tail) if tail else None
    for resolution, loss in final_validation(history).items():
        # Losses on codes compare with those on codes alone.
        values[f"validation_loss_{'codes_' if stage.latents else ''}{resolution}"] = loss
    for metric, value in values.items():
        if value is not None:
            found = value if isinstance(value, Quantity) else alone(measured(value, None, None))
            ends = (None, None) if found.exact else (found.low, found.high)
            yield Row(run.name, stage.name, run.seed, metric, found.value, *ends, "", **cost)


def _collect_evaluation(
    artifacts: Artifacts, run: Run, evaluation: Evaluation, images: int, seconds: float,
    rows: list[Row], missing: list[dict[str, Any]],
) -> None:  # fmt: skip
    stage = run.stages[-1].name
    where = {"protocol": evaluation.protocol, "images": images, "seconds": seconds}
    samples = cascades.drawing(evaluation, artifacts.json)
    if samples is None:
        missing.append(_absent(run, evaluation.samples, "sampled pictures", evaluation.protocol))
    elif samples.get("seconds"):
        drawn = samples.get("num_images") or samples.get("recipe", {}).get("num_images", 0)
        costs = {"low_psnr": samples.get("low_psnr"),
                 "sample_seconds": samples["seconds"], "sample_images_per_second": drawn / samples["seconds"],
                 "network_evaluations_per_image": samples.get("network_evaluations_per_image")}  # fmt: skip
        digest = digest_of(evaluation.samples)
        for metric, value in costs.items():
            if value is not None:
                rows.append(Row(run.name, stage, run.seed, metric, value, None, None, digest=digest, **where))
    if evaluation.scores is None:  # its pictures are compared with nothing
        return
    scores = artifacts.json(evaluation.scores, "scores.json")
    if scores is None:
        missing.append(_absent(run, evaluation.scores, "scores", evaluation.protocol))
        return
    for score in scores["metrics"]:
        if score["value"] is None:
            missing.append(_absent(run, evaluation.scores, f"value of {score['metric']}", evaluation.protocol))
            continue
        rows.append(Row(run.name, stage, run.seed, score["metric"], score["value"], score.get("low"),
                        score.get("high"), digest=digest_of(evaluation.scores), **where))  # fmt: skip


def write(study: Study, results: Path, metrics_csv: Path, missing_json: Path) -> tuple[list[Row], list[dict[str, Any]]]:
    """Write metrics.csv, groups.csv beside it, and missing.json."""
    rows, missing = collect(study, results)
    groups = [asdict(left) for left in collect_groups(study, results)]
    write_atomic(metrics_csv.with_name(GROUPS), csv_text(groups, [f.name for f in fields(Left)]))
    write_atomic(metrics_csv, csv_text([asdict(row) for row in rows], COLUMNS))
    write_json(missing_json, {"study": study.name, "digest": study.digest, "missing": missing})
    return rows, missing


def csv_text(records: list[dict[str, Any]], columns: Sequence[str]) -> str:
    """Records as CSV; None is an empty cell."""
    return pd.DataFrame(records, columns=list(columns), dtype=object).to_csv(index=False, lineterminator="\n")


def write_csv(path: Path, kind: type[Line], rows: Iterable[Line]) -> None:
    """Write rows whose fields are the columns."""
    write_atomic(path, csv_text([asdict(row) for row in rows], [field.name for field in fields(kind)]))


def read_rows(path: Path, kind: type[Line]) -> list[Line]:
    """The rows of a metrics.csv or groups.csv, whose columns are the fields of Row or Left; an empty number is None."""
    types = {name: DTYPES[hint] for name, hint in get_type_hints(kind).items()}
    empty = {name: "" for name, hint in types.items() if hint is float}
    if not path.is_file():
        raise ArtifactError(f"there is no {path}; collect again")
    try:
        # Other names than "" that pandas takes for missing (NA, null, None) may be names of runs.
        frame = pd.read_csv(path, dtype=types, float_precision="round_trip", keep_default_na=False, na_values=empty)
    except ValueError as error:
        raise ArtifactError(f"{path} cannot be read ({error}); collect again") from None
    if list(frame) != list(types):
        raise ArtifactError(f"{path} has the columns {list(frame)}, expected {list(types)}; collect again")
    return [kind(**record) for record in frame.astype(object).replace({np.nan: None}).to_dict("records")]
