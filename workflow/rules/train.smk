# Progressive training: slices of one stage, then its exported weights. Inputs are ancient: a stage is
# identified by its digest, and no time stamp may retrain it.


rule train_slice:
    input:
        recipe=ancient("results/train/{name}-{digest}/recipe.json"),
        parents=ancient(partial(parents, "train")),
        before=ancient(slice_before),
    output:
        temp("results/train/{name}-{digest}/slice-{images}.ckpt"),
    log:
        "results/train/{name}-{digest}/logs/slice-{images}.log",
    benchmark:
        "results/train/{name}-{digest}/logs/slice-{images}.benchmark.tsv"
    # Training is the long part: nothing else goes first while a stage can start.
    priority: 10
    resources:
        runtime=partial(resource, "train", "minutes"),
        nodes=partial(resource, "train", "nodes"),
        gpus_of_node=partial(resource, "train", "gpus"),
        cpus_per_task=partial(resource, "train", "cpus"),
        mem_mb=partial(resource, "train", "memory_mb"),
        gres=partial(asked, "train", "gres"),
        mpi=partial(asked, "train", "mpi"),
        tasks=partial(asked, "train", "tasks"),
        tasks_per_gpu=partial(asked, "train", "tasks_per_gpu"),
        device=partial(device, "train"),
        # A resource, not a parameter: those that change would train anew.
        how=partial(how, "train"),
    # One process for each GPU: `spread` starts them by srun; a single one it becomes itself.
    shell:
        "exec python -m mdm spread --nodes {resources.nodes} --gpus {resources.gpus_of_node} --cpus {resources.cpus_per_task}"
        " train {input.recipe} --out {output} --before {input.before} {resources.how}"
        " > {log} 2>&1"


# The last slice is kept: a finished stage can be continued or inspected.
use rule train_slice as train_last_slice with:
    output:
        "results/train/{name}-{digest}/final.ckpt",
    log:
        "results/train/{name}-{digest}/logs/final.log",
    benchmark:
        "results/train/{name}-{digest}/logs/final.benchmark.tsv"


rule export_weights:
    input:
        recipe=ancient("results/train/{name}-{digest}/recipe.json"),
        checkpoint=ancient("results/train/{name}-{digest}/final.ckpt"),
    output:
        "results/train/{name}-{digest}/weights.safetensors",
        "results/train/{name}-{digest}/history.jsonl",
        "results/train/{name}-{digest}/manifest.json",
    log:
        "results/train/{name}-{digest}/logs/export.log",
    shell:
        "python -m mdm export {input.recipe} > {log} 2>&1"


# Averaged weights on the way of a training, which left them as it passed.
rule take_snapshot:
    input:
        recipe=ancient("results/snapshot/{name}-{digest}/recipe.json"),
        training=ancient(partial(parents, "snapshot")),
        again=ancient(trained_again),
    output:
        "results/snapshot/{name}-{digest}/weights.safetensors",
        "results/snapshot/{name}-{digest}/manifest.json",
    log:
        "results/snapshot/{name}-{digest}/logs/snapshot.log",
    shell:
        "python -m mdm snapshot {input.recipe} > {log} 2>&1"


# A snapshot that was asked for when its training had gone past it: the training is repeated up to there, in a folder
# of its own, and leaves the same weights on the same kind of processor.
use rule train_slice as train_again with:
    input:
        recipe=ancient(partial(training, "recipe.json")),
        parents=ancient(training_parents),
        before=[],
    output:
        temp("results/snapshot/{name}-{digest}/slice-{images}.ckpt"),
    log:
        "results/snapshot/{name}-{digest}/logs/slice-{images}.log",
    benchmark:
        "results/snapshot/{name}-{digest}/logs/slice-{images}.benchmark.tsv"
    resources:
        runtime=partial(resource, "snapshot", "minutes"),
        nodes=partial(resource, "snapshot", "nodes"),
        gpus_of_node=partial(resource, "snapshot", "gpus"),
        cpus_per_task=partial(resource, "snapshot", "cpus"),
        mem_mb=partial(resource, "snapshot", "memory_mb"),
        gres=partial(asked, "snapshot", "gres"),
        mpi=partial(asked, "snapshot", "mpi"),
        tasks=partial(asked, "snapshot", "tasks"),
        tasks_per_gpu=partial(asked, "snapshot", "tasks_per_gpu"),
        device=partial(device, "snapshot"),
        how=partial(how, "snapshot"),
