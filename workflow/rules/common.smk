# The study, the shape of its names, and one-line questions to it. Logic lives in mdm/study.
import os
import shlex
import sys
from functools import partial
from pathlib import Path

# Works from a clone whether or not the package is installed, and whatever directory is the working one.
sys.path.insert(0, os.path.abspath(f"{workflow.current_basedir}/../.."))

from mdm import study
from mdm.study import drawing_jobs, products, stage_files
from mdm.study.run import cluster, incomplete, scheduling

# Jobs use the interpreter that runs Snakemake, also when its environment is not activated.
shell.prefix(
    f'set -euo pipefail; export PATH={shlex.quote(os.path.dirname(sys.executable))}:"$PATH"; '
)

# Before anything is planned: a kill between a job's output and Snakemake's note of its end must not stop the planning.
incomplete.trust_artifacts()
scheduling.look_once_at_a_time()

STUDY = study.load(config["study"], study.typed(config.get("set")))
SAME_STUDY = f"--nolock --snakefile {shlex.quote(str(workflow.main_snakefile))} --config {shlex.join(STUDY.call.snakemake)}"
# What only this study has; artifacts (results/KIND/NAME-DIGEST) are shared by all studies.
RESULTS = products.home("results", STUDY)
REPORTS = products.home("reports", STUDY)


# Before the first job, and not in a dry run: weights and lists from outside are proved; and how data sets are to be
# made is put beside their recipes. It is no job, because Snakemake (9.27) does not plan what is missing behind a file
# that is made anew for its params and read as ancient, and then it ends as if all were done.
onstart:
    # For `--logger mdm`: what belongs to which run, and what the time left is estimated from.
    outputs = [str(f) for job in workflow.dag.needrun_jobs() for f in job.output]
    logger.info(
        f"Study {STUDY.name}: {STUDY.title}",
        extra={"event": "study", "study": STUDY, "outputs": outputs},
    )
    shell("python -m mdm check {STUDY.call.mdm} --files")
    STUDY.write_handling(Path("results"))


wildcard_constraints:
    kind="data|text|train|snapshot|judge|clip|samples|features|scores|excess|audit|theory|autoencoder|latents",
    name="[a-z0-9.-]+",
    digest="[0-9a-f]{12}",
    images="[0-9]+",
    shards="[0-9]+-[0-9]+",
    part="[0-9]+-[0-9]+",
    figure="(?!samples-)[a-z0-9.-]+",
    run="[a-z0-9.,=-]+",
    ablation="[a-z0-9.-]+",
    page="index|ablations/[a-z0-9.-]+",


def done(refs):
    """Every artifact's manifest is written last: when it is there, the artifact is complete."""
    return [f"results/{ref}/manifest.json" for ref in refs]


def recipe(wildcards):
    return STUDY.recipe_text(f"{wildcards.kind}/{wildcards.name}-{wildcards.digest}")


def parents(kind, wildcards):
    return done(STUDY.parents(f"{kind}/{wildcards.name}-{wildcards.digest}"))


def shards(kind, wildcards):
    folder = f"{kind}/{wildcards.name}-{wildcards.digest}"
    return [f"results/{folder}/shards/{job}.done" for job in STUDY.shard_jobs(folder)]


def drawn_parts(wildcards):
    folder = f"samples/{wildcards.name}-{wildcards.digest}"
    return [
        f"results/{folder}/parts/{part}.npz"
        for part in drawing_jobs.parts(STUDY, folder)
    ]


def part_images(wildcards):
    return drawing_jobs.part_images(
        STUDY, f"samples/{wildcards.name}-{wildcards.digest}"
    )


def slice_before(wildcards):
    folder = f"train/{wildcards.name}-{wildcards.digest}"
    kept = map(int, glob_wildcards(f"results/{folder}/slice-{{n,[0-9]+}}.ckpt").n)
    before = STUDY.slice_before(folder, wildcards.get("images"), kept)
    return f"results/{folder}/{before}" if before else []


def training(file, wildcards):
    """A file of the training whose way a snapshot is on."""
    return f"results/{STUDY.trained(f'snapshot/{wildcards.name}-{wildcards.digest}')}/{file}"


def training_parents(wildcards):
    return done(
        STUDY.parents(STUDY.trained(f"snapshot/{wildcards.name}-{wildcards.digest}"))
    )


def trained_again(wildcards):
    """The end of a training that is repeated up to a snapshot; none where the training itself leaves the weights."""
    ref = f"snapshot/{wildcards.name}-{wildcards.digest}"
    if not stage_files.asked_too_late(STUDY, Path("results"), ref):
        return []
    return f"results/{ref}/slice-{STUDY.recipe(ref).images}.ckpt"


def resource(kind, key, wildcards):
    return getattr(STUDY.resources(f"{kind}/{wildcards.name}-{wildcards.digest}"), key)


def device(kind, wildcards):
    """Whether a job needs a GPU: `mdm run` lets one such job run at a time. No name that SLURM's executor reads."""
    return min(1, resource(kind, "gpus", wildcards))


def asked(kind, key, wildcards):
    folder = f"{kind}/{wildcards.name}-{wildcards.digest}"
    return cluster.asks(STUDY.resources(folder))[key]


def how(kind, wildcards, attempt):
    options = STUDY.training_options(f"{kind}/{wildcards.name}-{wildcards.digest}")
    return f"{options} --attempt {attempt}"


def study_options(wildcards):
    """By a function: Snakemake would take braces of an override for wildcards."""
    return STUDY.call.mdm


def figure_code(wildcards):
    return products.figure_module(wildcards.figure)


def ablation_artifacts(wildcards):
    return done(STUDY.measured(wildcards.ablation))
