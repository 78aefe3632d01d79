# Measuring: instruments trained on real pictures, then samples -> features -> scores of every run.


rule train_judge:
    input:
        recipe=ancient("results/judge/{name}-{digest}/recipe.json"),
        data=ancient(partial(parents, "judge")),
    output:
        "results/judge/{name}-{digest}/weights.safetensors",
        "results/judge/{name}-{digest}/judge.json",
        "results/judge/{name}-{digest}/manifest.json",
    log:
        "results/judge/{name}-{digest}/logs/train.log",
    benchmark:
        "results/judge/{name}-{digest}/logs/train.benchmark.tsv"
    shell:
        "exec python -m mdm --threads {threads} judge {input.recipe} > {log} 2>&1"


rule train_clip:
    input:
        recipe=ancient("results/clip/{name}-{digest}/recipe.json"),
        data=ancient(partial(parents, "clip")),
    output:
        "results/clip/{name}-{digest}/open_clip_config.json",
        "results/clip/{name}-{digest}/open_clip_model.safetensors",
        "results/clip/{name}-{digest}/manifest.json",
    log:
        "results/clip/{name}-{digest}/logs/train.log",
    benchmark:
        "results/clip/{name}-{digest}/logs/train.benchmark.tsv"
    shell:
        "exec python -m mdm --threads {threads} clip {input.recipe} > {log} 2>&1"


rule draw_samples:
    input:
        recipe=ancient("results/samples/{name}-{digest}/recipe.json"),
        parents=ancient(partial(parents, "samples")),
    output:
        "results/samples/{name}-{digest}/images.npz",
        "results/samples/{name}-{digest}/manifest.json",
    log:
        "results/samples/{name}-{digest}/logs/sample.log",
    benchmark:
        "results/samples/{name}-{digest}/logs/sample.benchmark.tsv"
    resources:
        runtime=partial(resource, "samples", "minutes"),
        gpu=partial(resource, "samples", "gpus"),
        device=partial(device, "samples"),
        cpus_per_task=partial(resource, "samples", "cpus"),
        mem_mb=partial(resource, "samples", "memory_mb"),
    shell:
        "exec python -m mdm --threads {resources.cpus_per_task} sample {input.recipe} > {log} 2>&1"


# Where several jobs draw a protocol (`images_per_job`): what a job has drawn is there even if another one fails. Once
# the pictures are put together the parts are gone, which draws none of them again.
rule draw_part:
    input:
        recipe=ancient("results/samples/{name}-{digest}/recipe.json"),
        parents=ancient(partial(parents, "samples")),
    output:
        "results/samples/{name}-{digest}/parts/{part}.npz",
    log:
        "results/samples/{name}-{digest}/logs/part-{part}.log",
    benchmark:
        "results/samples/{name}-{digest}/logs/part-{part}.benchmark.tsv"
    resources:
        runtime=partial(resource, "samples", "minutes"),
        gpu=partial(resource, "samples", "gpus"),
        device=partial(device, "samples"),
        cpus_per_task=partial(resource, "samples", "cpus"),
        mem_mb=partial(resource, "samples", "memory_mb"),
    shell:
        "exec python -m mdm --threads {resources.cpus_per_task} sample {input.recipe} --part {wildcards.part}"
        " > {log} 2>&1"


# Reads and writes every picture, gigabytes of them: no local rule. It needs no GPU.
rule gather_samples:
    input:
        recipe=ancient("results/samples/{name}-{digest}/recipe.json"),
        parents=ancient(partial(parents, "samples")),
        parts=ancient(drawn_parts),
    output:
        "results/samples/{name}-{digest}/images.npz",
        "results/samples/{name}-{digest}/manifest.json",
    log:
        "results/samples/{name}-{digest}/logs/gather.log",
    wildcard_constraints:
        digest=drawing_jobs.gathering(STUDY),
    resources:
        runtime=partial(resource, "samples", "minutes"),
        mem_mb=partial(resource, "samples", "memory_mb"),
        # A resource, not a parameter: those that change would draw anew.
        part_images=part_images,
    shell:
        "python -m mdm gather {input.recipe} --part-images {resources.part_images} > {log} 2>&1"


# Of the two rules that make an archive, a drawing in parts has the second one.
ruleorder: gather_samples > draw_samples


rule extract_features:
    input:
        recipe=ancient("results/features/{name}-{digest}/recipe.json"),
        parents=ancient(partial(parents, "features")),
    output:
        "results/features/{name}-{digest}/features.safetensors",
        "results/features/{name}-{digest}/statistics.safetensors",
        "results/features/{name}-{digest}/manifest.json",
    log:
        "results/features/{name}-{digest}/logs/features.log",
    benchmark:
        "results/features/{name}-{digest}/logs/features.benchmark.tsv"
    resources:
        runtime=partial(resource, "features", "minutes"),
        gpu=partial(resource, "features", "gpus"),
        device=partial(device, "features"),
        cpus_per_task=partial(resource, "features", "cpus"),
        mem_mb=partial(resource, "features", "memory_mb"),
    shell:
        "exec python -m mdm --threads {resources.cpus_per_task} features {input.recipe} > {log} 2>&1"


rule score:
    input:
        recipe=ancient("results/scores/{name}-{digest}/recipe.json"),
        features=ancient(partial(parents, "scores")),
    output:
        "results/scores/{name}-{digest}/scores.json",
        "results/scores/{name}-{digest}/manifest.json",
    log:
        "results/scores/{name}-{digest}/logs/score.log",
    shell:
        "python -m mdm --threads 1 score {input.recipe} > {log} 2>&1"


rule measure_excess:
    input:
        recipe=ancient("results/excess/{name}-{digest}/recipe.json"),
        parents=ancient(partial(parents, "excess")),
    output:
        "results/excess/{name}-{digest}/excess.json",
        "results/excess/{name}-{digest}/manifest.json",
    log:
        "results/excess/{name}-{digest}/logs/excess.log",
    benchmark:
        "results/excess/{name}-{digest}/logs/excess.benchmark.tsv"
    resources:
        runtime=partial(resource, "excess", "minutes"),
        gpu=partial(resource, "excess", "gpus"),
        device=partial(device, "excess"),
        cpus_per_task=partial(resource, "excess", "cpus"),
        mem_mb=partial(resource, "excess", "memory_mb"),
    shell:
        "exec python -m mdm --threads {resources.cpus_per_task} excess {input.recipe} > {log} 2>&1"


rule audit_copies:
    input:
        recipe=ancient("results/audit/{name}-{digest}/recipe.json"),
        parents=ancient(partial(parents, "audit")),
    output:
        "results/audit/{name}-{digest}/audit.json",
        "results/audit/{name}-{digest}/neighbours.npz",
        "results/audit/{name}-{digest}/worst.png",
        "results/audit/{name}-{digest}/manifest.json",
    log:
        "results/audit/{name}-{digest}/logs/audit.log",
    benchmark:
        "results/audit/{name}-{digest}/logs/audit.benchmark.tsv"
    resources:
        runtime=partial(resource, "audit", "minutes"),
        gpu=partial(resource, "audit", "gpus"),
        device=partial(device, "audit"),
        cpus_per_task=partial(resource, "audit", "cpus"),
        mem_mb=partial(resource, "audit", "memory_mb"),
    shell:
        "exec python -m mdm --threads {resources.cpus_per_task} audit {input.recipe} > {log} 2>&1"


rule draw_theory:
    input:
        recipe=ancient("results/theory/{name}-{digest}/recipe.json"),
        parents=ancient(partial(parents, "theory")),
    output:
        "results/theory/{name}-{digest}/theory.json",
        "results/theory/{name}-{digest}/theory.npz",
        "results/theory/{name}-{digest}/manifest.json",
    log:
        "results/theory/{name}-{digest}/logs/theory.log",
    benchmark:
        "results/theory/{name}-{digest}/logs/theory.benchmark.tsv"
    shell:
        "exec python -m mdm --threads {threads} theory {input.recipe} > {log} 2>&1"
