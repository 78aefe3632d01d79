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
        gres=partial(asked, "gres"),
        mpi=partial(asked, "mpi"),
        tasks=partial(asked, "tasks"),
        tasks_per_gpu=partial(asked, "tasks_per_gpu"),
        device=partial(device, "train"),
        # A resource, not a parameter: those that change would train anew.
        how=how,
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
