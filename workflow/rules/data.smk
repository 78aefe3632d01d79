# Data: recipe -> index -> shards -> manifest -> text embeddings.


localrules:
    write_recipe,
    write_manifest,
    list_captions,


# Every verb proves that a recipe is the one its folder is named after (the digest). An output of an artifact appears
# by a rename, and a rule waits for the one that appears last: then what is there is complete (mdm/study/run/incomplete.py).
rule write_recipe:
    output:
        "results/{kind}/{name}-{digest}/recipe.json",
    log:
        "results/{kind}/{name}-{digest}/logs/recipe.log",
    params:
        recipe=recipe,
    shell:
        "printf '%s\n' {params.recipe:q} > {output}.new 2> {log} && mv {output}.new {output}"


rule fetch_index:
    input:
        recipe=ancient("results/data/{name}-{digest}/recipe.json"),
    output:
        "results/data/{name}-{digest}/index.tsv",
        "results/data/{name}-{digest}/index.json",
    log:
        "results/data/{name}-{digest}/logs/index.log",
    shell:
        "python -m mdm index {input.recipe} > {log} 2>&1"


# The shards themselves are no outputs: a job that is killed or fails loses none of what it has finished.
rule make_shards:
    input:
        recipe=ancient("results/data/{name}-{digest}/recipe.json"),
        index=ancient("results/data/{name}-{digest}/index.json"),
    output:
        touch("results/data/{name}-{digest}/shards/{shards}.done"),
    log:
        "results/data/{name}-{digest}/logs/shards-{shards}.log",
    benchmark:
        "results/data/{name}-{digest}/logs/shards-{shards}.benchmark.tsv"
    shell:
        "python -m mdm shard {input.recipe} --shard {wildcards.shards} > {log} 2>&1"


rule write_manifest:
    input:
        recipe=ancient("results/data/{name}-{digest}/recipe.json"),
        shards=ancient(partial(shards, "data")),
    output:
        "results/data/{name}-{digest}/manifest.json",
    log:
        "results/data/{name}-{digest}/logs/manifest.log",
    shell:
        "python -m mdm manifest {input.recipe} > {log} 2>&1"


# Which captions are distinct, and so what each shard of embeddings holds.
rule list_captions:
    input:
        recipe=ancient("results/text/{name}-{digest}/recipe.json"),
        data=ancient(partial(parents, "text")),
    output:
        "results/text/{name}-{digest}/captions.safetensors",
    log:
        "results/text/{name}-{digest}/logs/captions.log",
    shell:
        "python -m mdm index {input.recipe} > {log} 2>&1"


# As with the pictures, the shards are no outputs.
rule embed_text:
    input:
        recipe=ancient("results/text/{name}-{digest}/recipe.json"),
        captions=ancient("results/text/{name}-{digest}/captions.safetensors"),
    output:
        "results/text/{name}-{digest}/shards/{shards}.done",
    log:
        "results/text/{name}-{digest}/logs/embed-{shards}.log",
    benchmark:
        "results/text/{name}-{digest}/logs/embed-{shards}.benchmark.tsv"
    resources:
        runtime=partial(resource, "text", "minutes"),
        gpu=partial(resource, "text", "gpus"),
        device=partial(device, "text"),
        cpus_per_task=partial(resource, "text", "cpus"),
        mem_mb=partial(resource, "text", "memory_mb"),
    shell:
        "exec python -m mdm --threads {resources.cpus_per_task} embed {input.recipe} --shard {wildcards.shards}"
        " > {log} 2>&1"


# Reads every shard to prove it: minutes for millions of captions, so no local rule.
rule gather_text:
    input:
        recipe=ancient("results/text/{name}-{digest}/recipe.json"),
        captions=ancient("results/text/{name}-{digest}/captions.safetensors"),
        shards=ancient(partial(shards, "text")),
    output:
        "results/text/{name}-{digest}/lookup.safetensors",
        "results/text/{name}-{digest}/manifest.json",
    log:
        "results/text/{name}-{digest}/logs/gather.log",
    resources:
        runtime=partial(resource, "text", "minutes"),
        mem_mb=partial(resource, "text", "memory_mb"),
    shell:
        "python -m mdm manifest {input.recipe} > {log} 2>&1"
