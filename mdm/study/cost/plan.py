"""What a study would do and cost, before anything is submitted: time, GPU-hours, memory, storage and jobs."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from mdm.config.recipe import StageRecipe
from mdm.config.sizes import shape
from mdm.config.units import percent, rough_duration, size
from mdm.files.atomic import read_json
from mdm.model.arithmetic import parameters, step_gigaflops
from mdm.study.cost import latent, observed
from mdm.study.cost import speeds as throughput
from mdm.study.cost.parts import networks
from mdm.study.cost.speeds import Speed, Throughput
from mdm.study.cost.works import works
from mdm.study.drawing_jobs import drawn_images, parts, parts_there
from mdm.study.resolved import behind, chosen_runs
from mdm.study.stage_files import asked_too_late, saved_images
from mdm.study.study import Study

BYTES_OF_A_WEIGHT = 4  # in a snapshot, which shares its file with the training that left it
# Exported twice (averaged, raw), and in the last checkpoint beside the two moments of every weight.
BYTES_KEPT = 4 * (2 + 4)
# While it trains: two autosaves and one being written, and the slice before.
BYTES_TRAINING = 4 * 4 * 4
BYTES_PER_PIXEL = 0.5  # of a stored photograph: JPEG of quality 95; drawn scenes are smaller
# Of every further job that draws: Python and torch start, the network is built, and its weights are read and proved.
# For the 577 million weights of the paper study that took 9 s of one processor; reading them comes on top.
START_SECONDS = 15
# What makes jobs of a kind of artifact shorter.
SMALLER = {"train": "slice_images", "samples": "images_per_job", "latents": "shards_per_job"}
NO_PEAKS: Mapping[str, int] = {}
MARKS = {
    "c": "c = calibrated on {source}",
    "f": "f = from its FLOPs at the speed calibrated on {source}",
    "cb": "cb = calibrated on {source}, which was busy: run `mdm calibrate` again when it is idle",
    "fb": "fb = from its FLOPs at the speed calibrated on {source}, which was busy: run `mdm calibrate` again",
    "r": "r = as fast as equal work went in this results folder",
    "?": "? = not measured yet: {assumed:g} s per GFLOP and device are assumed (seconds_per_gigaflop in the study; "
    "`mdm calibrate` measures it)",
}


def training_gigaflops(recipe: StageRecipe) -> float:
    """Return the arithmetic of a whole stage, without its text."""
    return recipe.num_images * step_gigaflops(recipe.model, recipe.diffusion, 0)


@dataclass(frozen=True)
class Line:
    """One artifact that costs time: all of it, and what is left of it."""

    ref: str
    images: int
    seconds: float
    left_seconds: float
    gpus: int
    slices: int
    left_slices: int
    bytes: int
    status: str
    mark: str = ""
    peak_bytes: int | None = None

    @property
    def gpu_hours(self) -> float:
        return self.seconds * self.gpus / 3600


class Estimate:
    """Cost of each artifact: measured where it or equal work was made on this disk, else calibrated, else assumed."""

    def __init__(self, study: Study, results: Path, speeds: Throughput | None = None) -> None:
        self._study, self._results = study, results
        self._speeds = speeds or Throughput(study.config.seconds_per_gigaflop)
        self._seen = observed.speeds(study, results)

    def line(self, ref: str) -> Line:
        if latent.is_latent(ref):
            return self._latent(ref)
        return self._snapshot(ref) if ref.startswith("snapshot/") else self._line(ref)

    def _latent(self, ref: str) -> Line:
        """An autoencoder, or the codes of a data set."""
        study, gpus, manifest = self._study, self._study.resources(ref).gpus, self._results / ref / "manifest.json"
        images, jobs, kept = latent.images(study, ref), latent.jobs(study, ref), latent.kept(study, ref)
        if manifest.is_file():
            return Line(ref, images, read_json(manifest)["seconds"], 0.0, gpus, jobs, 0, kept, "done")
        kind = "train" if ref.startswith("autoencoder/") else "draw"
        each, mark = self._speeds.by_arithmetic(kind, "float32", gpus > 0)
        seconds = each * latent.gigaflops(study, ref)
        return Line(ref, images, seconds, seconds, gpus, jobs, jobs, kept, "to do", mark)

    def _snapshot(self, ref: str) -> Line:
        """A snapshot takes no time of its own, unless it was asked for too late."""
        recipe, resources = self._study.recipe(ref), self._study.resources(ref)
        stage = self._study.recipe(recipe.train)
        kept, done = BYTES_OF_A_WEIGHT * parameters(stage.model), (self._results / ref / "manifest.json").is_file()
        if done or not asked_too_late(self._study, self._results, ref):
            return Line(ref, recipe.images, 0.0, 0.0, 0, 1, int(not done), kept, "done" if done else "to do")
        seconds, mark, peak = self._whole(recipe.train)
        again, gpus = seconds * recipe.images / stage.num_images, resources.nodes * resources.gpus
        return Line(ref, recipe.images, again, again, gpus, 1, 1, kept, "train again", mark, peak)

    def _line(self, ref: str) -> Line:
        folder, images = self._results / ref, self._study.recipe(ref).num_images
        resources, trains = self._study.resources(ref), ref.startswith("train/")
        gpus = resources.nodes * resources.gpus
        if (folder / "manifest.json").is_file():
            seconds = observed.seconds(self._study, self._results, ref) or 0.0
            jobs = self._jobs(ref, images)[0]
            return Line(ref, images, seconds, 0.0, gpus, jobs, 0, self._bytes(ref), "done")
        done = self._done(ref)
        jobs, left_jobs = self._jobs(ref, done)
        seconds, mark, peak = self._whole(ref)
        left = seconds * (1 - done / images)
        if not trains and jobs > 1:
            seconds, left = seconds + START_SECONDS * jobs, left + START_SECONDS * left_jobs
        status = percent(done / images) if done else "to do"
        return Line(ref, images, seconds, left, gpus, jobs, left_jobs, self._bytes(ref), status, mark, peak)

    def _jobs(self, ref: str, done: int) -> tuple[int, int]:
        """Return how many jobs train or draw an artifact, and how many of them are left."""
        if ref.startswith("train/"):
            ends = self._study.slice_ends(ref)
            return len(ends), sum(end > done for end in ends)
        drawn = parts(self._study, ref)
        # The last step, of putting them together, is there to do when all of them are.
        return max(1, len(drawn)), max(1, len(drawn) - len(parts_there(self._results / ref, drawn)))

    def seconds(self, ref: str) -> float:
        """Return what training or drawing an artifact is expected to take."""
        return self._whole(ref)[0]

    def _whole(self, ref: str) -> tuple[float, str, int | None]:
        """Return the seconds of all of it on its job's devices, how that is known, and memory if known."""
        if seconds := observed.seconds(self._study, self._results, ref):
            return seconds, "", None
        work = throughput.work(self._study, ref)
        speed = self._speeds.speed(work)
        decoding = self._speeds.by_arithmetic("draw", "float32", work.on_gpu)[0] * latent.decoding(self._study, ref)
        if work.key in self._seen and throughput.passes(self._study, ref):
            speed, decoding = Speed(self._seen[work.key], "r", speed.peak_bytes), 0.0  # what was seen had it inside
        network = throughput.passes(self._study, ref) * speed.seconds
        return (network + decoding) / throughput.devices(self._study, ref), speed.mark, speed.peak_bytes

    def _done(self, ref: str) -> int:
        """Return how many pictures need not be made again."""
        folder, total = self._results / ref, self._study.recipe(ref).num_images
        if ref.startswith("train/"):
            return saved_images(folder, total)
        return drawn_images(folder, total)

    def _bytes(self, ref: str) -> int:
        """Return the size of what is kept."""
        recipe = self._study.recipe(ref)
        if ref.startswith("train/"):
            return parameters(recipe.model) * BYTES_KEPT
        sizes = self._study.recipe(self._study.trained(recipe.train)).drawn
        return recipe.num_images * sum(math.prod(shape(size)) for size in sizes)


class Plan:
    """Every run with its lines, or those asked for; what several runs share is counted once."""

    def __init__(
        self, study: Study, results: Path, speeds: Throughput, peaks: Mapping[str, int] = NO_PEAKS,
        only: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.study, self._speeds, self._peaks = study, speeds, peaks
        self._whole, self.runs = not only, chosen_runs(study, only)
        estimate, self.lines = Estimate(study, results, speeds), {}
        self.added: dict[tuple[str, int], list[str]] = {}
        for run in self.runs:
            fresh = [ref for _, ref in works(run) if ref not in self.lines]
            self.lines |= {ref: estimate.line(ref) for ref in fresh}
            self.added[run.name, run.seed] = list(dict.fromkeys(fresh))

    def text(self) -> str:
        parts = (
            self._table(),
            [""],
            self._totals(),
            [""],
            networks(self.study, self.runs),
            self._storage(),
            self._warnings(),
        )
        return "\n".join([*chain.from_iterable(parts), *self._legend()])

    def _table(self) -> Iterator[str]:
        yield (
            f"{'run':<28} {'stage':<18} {'artifact':<44} {'images':>13} {'time':>10} {'GPU-h':>8} {'memory':>9}"
            f" {'storage':>9} {'jobs':>7}  status"
        )
        for run in self.runs:
            for what, ref in works(run):
                line, name = self.lines[ref], f"{run.name} #{run.seed}"
                start = f"{name:<28} {what:<18} {ref:<44} {line.images:>13,}"
                shared = ref not in self.added[run.name, run.seed]
                yield f"{start} {'':>47}  shared" if shared else f"{start} {self._costs(line)}"

    def _costs(self, line: Line) -> str:
        time = f"{rough_duration(line.seconds)} {line.mark}".strip()
        peak = self._peaks.get(line.ref, line.peak_bytes)
        jobs = f"{line.left_slices}/{line.slices}"
        return (
            f"{time:>10} {hours(line.gpu_hours):>8} {'' if peak is None else size(peak):>9} {size(line.bytes):>9}"
            f" {jobs:>7}  {line.status}"
        )

    def _totals(self) -> Iterator[str]:
        """Yield a line for each run and ablation: by itself, and what it adds to the runs before."""
        yield (
            f"{'together':<28} {'alone: time':>12} {'GPU-h':>8}   {'added: time':>12} {'GPU-h':>8} {'storage':>9}"
            f" {'jobs':>7}   {'left: time':>12} {'GPU-h':>8}"
        )
        for run in self.runs:
            yield self._total(f"{run.name} #{run.seed}", [r for _, r in works(run)], self.added[run.name, run.seed])
        for ablation in self.study.ablations.values():
            members = [run for run in self.runs if run.name in ablation.runs]
            if len(members) > 1:
                alone = [ref for run in members for _, ref in works(run)]
                added = [ref for run in members for ref in self.added[run.name, run.seed]]
                yield self._total(f"{ablation.name} ({len(members)} runs)", alone, added)
        yield self._total("the whole study" if self._whole else "all of these", list(self.lines), list(self.lines))

    def _total(self, name: str, alone: Iterable[str], added: Iterable[str]) -> str:
        everything, new = ([self.lines[ref] for ref in dict.fromkeys(refs)] for refs in (alone, added))
        jobs = f"{sum(x.left_slices for x in new)}/{sum(x.slices for x in new)}"
        left = sum(x.left_seconds for x in new), sum(x.left_seconds * x.gpus / 3600 for x in new)
        return (
            f"{name:<28} {_cost(everything)}   {_cost(new)} {size(sum(x.bytes for x in new)):>9} {jobs:>7}"
            f"   {rough_duration(left[0]):>12} {hours(left[1]):>8}"
        )

    def _storage(self) -> Iterator[str]:
        """Yield what else needs room."""
        needed = set(self.study.artifacts if self._whole else behind(self.study, self.runs))
        models = [self.study.recipe(ref).model for ref in self.study.of_kind("train") if ref in needed]
        largest = max(map(parameters, models))
        yield f"A stage in training keeps up to {size(largest * BYTES_TRAINING)} more (autosaves and the slice before)."
        for ref in self.study.of_kind("data", "text"):
            if ref in needed and (said := (self._of_data if ref.startswith("data/") else self._of_text)(ref)):
                yield f"{ref}: {said}"

    def _of_data(self, ref: str) -> str:
        count, side = (self.study.recipe(ref).settings.get(key) for key in ("num_images", "resolution"))
        return f"about {size(count * side**2 * BYTES_PER_PIXEL)} of pictures" if count and side else ""

    def _of_text(self, ref: str) -> str:
        recipe, jobs = self.study.recipe(ref), len(self.study.shard_jobs(ref))
        counts = [self.study.recipe(ref).settings.get("num_images") for ref in recipe.data]
        if None in counts:
            return ""
        tokens = recipe.encoder.settings.max_tokens
        room = size(sum(counts) * 2 * recipe.encoder.channels * tokens)
        return f"at most {room} of embeddings (captions of {tokens} tokens), by {jobs} job{'s' * (jobs != 1)}"

    def _warnings(self) -> Iterator[str]:
        """Yield the jobs that their time limit would end; they must queue again, and an autoencoder begins anew."""
        for ref, line in self.lines.items():
            minutes, each = self.study.resources(ref).minutes, line.seconds / line.slices / 60
            if line.left_slices and line.gpus and each > minutes:
                key = SMALLER.get(ref.partition("/")[0])  # others are made by one job
                remedy = f"write a smaller {key} or more minutes" if key else "write more minutes"
                takes, asks = rough_duration(60 * each), rough_duration(60 * minutes)
                yield f"{ref}: a job takes {takes}, but asks for {asks}; {remedy}"

    def _legend(self) -> Iterator[str]:
        used = {line.mark for line in self.lines.values()} - {""}
        yield f"{len(self.lines)} artifacts; time: one after another; jobs: still to run / all; storage: what is kept"
        if any(line.gpus > 1 for line in self.lines.values()):
            yield "several GPUs: as fast as so many single ones; what they tell one another is not counted"
        assumed = self.study.config.seconds_per_gigaflop
        yield from (text.format(source=self._speeds.source, assumed=assumed) for k, text in MARKS.items() if k in used)


def _cost(lines: list[Line]) -> str:
    return f"{rough_duration(sum(x.seconds for x in lines)):>12} {hours(sum(x.gpu_hours for x in lines)):>8}"


def hours(count: float) -> str:
    """Format GPU-hours; nothing where no GPU is asked for."""
    return f"{count:,.1f}" if 0 < count < 100 else f"{count:,.0f}" if count else ""


def render(
    study: Study, results: Path, speeds: Throughput | None = None, peaks: Mapping[str, int] = NO_PEAKS,
    only: Sequence[str] = (),
) -> str:  # fmt: skip
    """Return the plan as text, of all runs or of these runs and ablations.

    `peaks` are the bytes that a step of a training takes, where that was asked for.
    """
    return Plan(study, results, speeds or Throughput(study.config.seconds_per_gigaflop), peaks, only).text()
