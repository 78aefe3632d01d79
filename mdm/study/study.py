"""A study: from one YAML file to runs, stages and content-addressed artifacts. Reads nothing but that file; no torch.

Runs share the artifacts of equal stages, an edited value makes new folders, and a reverted edit finds the old ones.
"""

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mdm.config import ResourceConfig, RunConfig, StudyConfig, StudyError, nearest
from mdm.config.base import parse
from mdm.config.recipe import strings
from mdm.config.sizes import listed
from mdm.files.artifact import digest
from mdm.files.atomic import read_json, write_json
from mdm.study import latents
from mdm.study.cascades import base_of
from mdm.study.claimed import claimed
from mdm.study.data_sets import Artifact
from mdm.study.evaluations import Evaluations
from mdm.study.reaches import asked
from mdm.study.recipes import Artifacts
from mdm.study.runs import Ablation, Call, Run, Stage, Variant
from mdm.study.standard_protocols import expand
from mdm.study.study_file import assign, read_study
from mdm.study.variants import all_variants
from mdm.study.varied import resolved

RESERVED_TARGETS = ("all", "data", "report", "base", "score")


class Study:
    """Everything that follows from a study file: runs, artifacts, targets."""

    def __init__(self, path: Path, raw: dict[str, Any], config: StudyConfig, call: Call) -> None:
        self.path, self.name, self.config, self.call, self._raw = path, path.stem, config, call, raw
        self.title, self.question, self.abstract = config.title, config.question, config.abstract
        self.protocols, self.groups = config.protocols, config.groups
        self._made = Artifacts(config, path.name)
        self._slices: dict[str, int | None] = {}
        self._resources: dict[str, ResourceConfig] = {}
        self._measured = Evaluations(self._made, config, self._resources, path.name)
        variants = all_variants(config, self._measured.usual, path.name)
        self._variant_of = {variant.name: variant for variant in variants}
        self.ablations = self._ablations(variants)
        for name in self._measured.audits.twins:
            self._known(name, self._variant_of, "audit.twins")
        self.runs = [run for variant in variants for run in self._runs(variant)]
        self.theory = self._made.theory(self.runs[0].stages[-1].artifact) if config.theory else None
        self._measured.check_along([*self._variant_of, *self.ablations], self.runs)
        self.artifacts: dict[str, Artifact] = self._made.artifacts
        self._check_counts()
        self.emm, self.claims = claimed(config, self.runs, self._made, self._measured.audits, path.name)
        self._check_targets()
        # Identity of the numbers: titles and texts are left out, so editing them reruns no measurement.
        numbers = [[run.name, run.seed, run.numbers] for run in self.runs]
        curves = [[asdict(curve) for curve in self.emm.values()]] if self.emm else []
        self.reaches = asked(self.claims.values())
        curves += [[str(pair) for pair in self.reaches]] if self.reaches else []
        self.digest = digest([numbers, [[a.name, a.against, a.group] for a in self.ablations.values()], *curves])
        self.claims_digest = digest([self.digest, [asdict(claim) for claim in self.claims.values()]])

    def _ablations(self, variants: list[Variant]) -> dict[str, Ablation]:
        names = [variant.name for variant in variants]
        found = {}
        for name, entry in self.config.ablations.items():
            self._known(entry.group, self.groups, f"ablations.{name}.group")
            self._known(entry.against, names, f"ablations.{name}.against")
            for protocol in entry.protocols or []:
                self._known(protocol, self.protocols, f"ablations.{name}.protocols")
            runs = [variant.name for variant in variants if variant.ablation == name]
            found[name] = Ablation(
                name, entry.title, entry.question, entry.group, entry.against, entry.set, entry.sweep,
                entry.seeds or self.config.seeds, runs,
            )  # fmt: skip
        return found

    def _config(self, variant: Variant) -> tuple[RunConfig, str, dict[str, Any]]:
        """The settings of a run, their place in the file, and each changed setting with what base has there."""
        raw = copy.deepcopy(self._raw["base"])
        place = "base" if variant.ablation is None else f"ablations.{variant.ablation}"
        diff = {path: (assign(raw, path, value), value) for path, value in variant.changes.items()}
        config = parse(RunConfig, raw, f"{self.name}.yaml: {place}")
        return resolved(config, self._made, f"{self.name}.yaml: {place}"), place, diff

    def _runs(self, variant: Variant) -> Iterator[Run]:
        config, place, diff = self._config(variant)
        for seed in variant.seeds:
            stages = self._stages(config, seed, place)
            guide = self._guide(config.sample.guide, seed, place)
            evaluations = [self._measured.at_end(config, stages[-1], name, guide) for name in variant.protocols]
            points = self._measured.along(variant, config, stages, guide)
            yield Run(
                variant.name, seed, variant.label, variant.ablation, variant.value, diff, stages, evaluations, points,
                self._measured.excess(stages[-1]),
                self._measured.audits.of(stages, evaluations, points, self._twin(variant.name, seed, stages[-1])),
            )  # fmt: skip

    def _guide(self, name: str | None, seed: int, place: str) -> str | None:
        """The last stage of the run whose network guides."""
        return self._other(name, seed, f"{place}.sample.guide")[1].artifact if name else None

    def _twin(self, name: str, seed: int, last: Stage) -> str | None:
        """What the run that `audit.twins` names beside this one draws in the end."""
        audits = self._measured.audits
        if name not in audits.twins:
            return None
        place = f"audit.twins.{name}"
        config, stage = self._other(audits.twins[name], seed, place)
        other = stage.resolutions != last.resolutions or stage.latents[:1] != last.latents[:1]  # by the noises
        if stage.artifact == last.artifact or other:
            raise StudyError(f"{self.name}.yaml: {place}: name a run of the same levels that was trained otherwise")
        guide = self._guide(config.sample.guide, seed, place)
        return self._measured.at_end(config, stage, audits.protocol, guide).samples

    def _other(self, name: str, seed: int, place: str) -> tuple[RunConfig, Stage]:
        """The settings and the last stage of another run, with the same seed (or its first, if it has no such)."""
        self._known(name, self._variant_of, place)
        variant = self._variant_of[name]
        config, own_place, _ = self._config(variant)
        return config, self._stages(config, seed if seed in variant.seeds else variant.seeds[0], own_place)[-1]

    def _stages(self, run: RunConfig, seed: int, place: str) -> list[Stage]:
        stages: list[Stage] = []
        for name, entry in run.stages.items():
            base = base_of(entry, stages, f"{self.name}.yaml: {place}.stages.{name}")
            parent = stages[-1] if stages and not base else None
            resolutions = latents.drawn_sizes(self._made, run, entry, place)
            if parent and resolutions[: len(parent.resolutions)] != parent.resolutions:
                raise StudyError(
                    f"{self.name}.yaml: {place}.stages.{name}: resolutions {listed(resolutions)} do not continue "
                    f"{listed(parent.resolutions)} of stage '{parent.name}'; a stage keeps the levels before it"
                )
            ref = self._made.train(run, name, seed, parent.artifact if parent else None, place, base)
            self._slices.setdefault(ref, entry.slice_images)
            self._resources.setdefault(ref, entry.resources)
            stages.append(Stage(name, ref, resolutions, entry.num_images, base, latents.of_stage(self._made, ref)))
        return stages

    def _known(self, word: str, valid: Any, place: str) -> None:
        if word not in valid:
            raise StudyError(f"{self.name}.yaml: {place}: there is no '{word}'; {nearest(word, valid)}")

    def _check_counts(self) -> None:
        """Refuse protocols that want more pictures than there are, or labels of none, all in one message."""
        problems = []
        for name, protocol in self.protocols.items():
            for data, key in (protocol.prompts, "num_images"), (protocol.reference, "num_reference"):
                if data is None:
                    continue
                wanted = getattr(protocol, key) // (protocol.per_prompt or 1 if key == "num_images" else 1)
                problems += self._made.too_many(data, wanted, f"protocols.{name}.{key}")
            asked = protocol.labels
            if asked != "all" and not any(self.recipe(ref).labels == asked for ref in self.of_kind("samples")):
                problems.append(
                    f"{self.name}.yaml: protocols.{name}.labels: {asked} has no effect, no run has model.classes; "
                    "leave it out"
                )
        if problems:
            raise StudyError("\n".join(problems))

    def _check_targets(self) -> None:
        names = [*self.ablations, *self.groups]
        clashes = {n for n in names if n in RESERVED_TARGETS or names.count(n) > 1}
        if clashes:
            raise StudyError(
                f"{self.name}.yaml: {sorted(clashes)} would be two targets with one name; "
                f"rename the ablation or group (reserved: {', '.join(RESERVED_TARGETS)})"
            )

    def artifact(self, ref: str) -> Artifact:
        if ref not in self.artifacts:
            raise StudyError(f"the study '{self.name}' has no {ref}: it was made by other settings")
        return self.artifacts[ref]

    def recipe(self, ref: str) -> Any:
        """Return the typed recipe of an artifact: a StageRecipe of train/..., a SamplesRecipe of samples/..., ..."""
        return self.artifact(ref).recipe

    def trained(self, ref: str) -> str:
        """Return the training whose weights an artifact holds: the stage itself, or that of a snapshot."""
        return self._made.trained(ref)

    def recipe_text(self, ref: str) -> str:
        return json.dumps(self.recipe(ref).plain(), indent=2, ensure_ascii=False)

    def resources(self, ref: str) -> ResourceConfig:
        """Return what the job that makes an artifact asks for."""
        if ref in self._made.encoders:
            return self.config.text[self._made.encoders[ref]].resources
        return self._resources.get(ref) or latents.resources(self._made, ref) or ResourceConfig()

    def runs_named(self, name: str) -> list[Run]:
        """Return the runs of this name, one for each seed; an unknown name is an error."""
        if found := [run for run in self.runs if run.name == name]:
            return found
        raise StudyError(f"study '{self.name}' has no run '{name}'; {nearest(name, {run.name for run in self.runs})}")

    def parents(self, ref: str) -> list[str]:
        """Return the artifacts that this one is made from, in the order its recipe names them."""
        named = strings(self.recipe(ref).plain())
        return list(dict.fromkeys(name for name in named if name in self.artifacts))

    def training_options(self, ref: str) -> str:
        """Return how a job trains a stage, or repeats it up to a snapshot, as options of `mdm train`."""
        known = [ref] if ref.startswith("snapshot/") else self.of_kind("snapshot")
        recipes = [self.recipe(snapshot) for snapshot in known]
        counts = sorted(recipe.images for recipe in recipes if self.trained(ref) == recipe.train)
        return " ".join([self.resources(ref).options, *(["--snapshots", *map(str, counts)] if counts else [])])

    def slice_before(self, ref: str, images: str | int | None = None, kept: Iterable[int] = ()) -> str | None:
        """Return the checkpoint with which the slice ending at `images` (None: the last slice) begins.

        Where slices of another size were made before (they ended at `kept`), it is the newest one on the way.
        """
        total = self.recipe(ref).num_images
        size, end = self._slices[ref] or total, int(images or total)
        start = max([(end - 1) // size * size, *(count for count in kept if count < end)])
        return f"slice-{start}.ckpt" if start else None

    def slice_ends(self, ref: str) -> list[int]:
        total = self.recipe(ref).num_images
        size = self._slices[ref] or total
        return [*range(size, total, size), total]

    def shard_jobs(self, ref: str) -> list[str]:
        """Return the ranges of shards that jobs make, known before anything is fetched: "00000-00009".

        Equal captions are stored once, so the last jobs of a text may find that their shards do not exist.
        """
        from mdm.data.sources import registry as sources
        from mdm.data.text.captions import SHARD_CAPTIONS, most_shards

        recipe, encoder = self.recipe(ref), self._made.encoders.get(ref)
        if encoder:
            captions = 1 + len(recipe.captions)  # the empty one, and the negative prompt
            captions += sum(self.recipe(data).num_images for data in recipe.data)
            count, size = most_shards(captions, SHARD_CAPTIONS), self.config.text[encoder].shards_per_job
        elif of_codes := latents.shard_count(self._made, ref):
            count, size = of_codes
        else:
            count, size = len(sources.shard_names(recipe)), self.config.data[self.artifact(ref).name].shards_per_job
        return [f"{k:05d}-{min(k + size, count) - 1:05d}" for k in range(0, count, size)]

    def write_handling(self, results: Path) -> None:
        """Write handling.json beside the recipes of data sets: how they are made, which is no part of the recipe."""
        for ref, artifact in self.artifacts.items():
            path = results / ref / "handling.json"
            if artifact.handling and not (path.is_file() and read_json(path) == artifact.handling):
                write_json(path, artifact.handling)

    def measured(self, ablation: str | None = None) -> list[str]:
        """Return artifacts that hold numbers: of the study, or of one ablation and what it is compared with."""
        chosen = self.ablations[ablation] if ablation else None
        names = {chosen.against, *chosen.runs} if chosen else {run.name for run in self.runs}
        runs = [run for run in self.runs if run.name in names]
        trained = [stage.artifact for run in runs for stage in run.stages]
        trained += [point.weights for run in runs for point in run.points]
        shared = [self.theory] if self.theory and not ablation else []
        return list(dict.fromkeys(trained + [ref for run in runs for ref in run.numbers] + shared))

    def of_kind(self, *kinds: str) -> list[str]:
        return [ref for ref, artifact in self.artifacts.items() if artifact.kind in kinds]


def group_members(study: Study) -> dict[str, list[str]]:
    """Map each group that has any ablations to these, in the study's order."""
    members = {g: [a.name for a in study.ablations.values() if a.group == g] for g in study.groups}
    return {group: names for group, names in members.items() if names}


def runs_of(study: Study) -> dict[str, list[str]]:
    """Map each artifact of a run to the names of the runs that use it."""
    found: dict[str, dict[str, None]] = {}
    for run in study.runs:
        refs = [stage.artifact for stage in run.stages] + [point.weights for point in run.points]
        refs += [ref for e in run.measurements for ref in (e.samples, e.features) if ref] + run.numbers
        for ref in refs:
            found.setdefault(ref, {})[run.name] = None  # seeds share a name
    return {ref: list(names) for ref, names in found.items()}


def load(name: str, overrides: dict[str, Any] | None = None) -> Study:
    """Read, merge and validate a whole study: every run, before anything is planned or made."""
    path, raw, config = read_study(name, overrides or {})
    return Study(path, raw, expand(config, path.name), Call(name, overrides or {}))
