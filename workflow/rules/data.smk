# Data: recipe -> index -> shards -> manifest -> text embeddings.


localrules:
    write_recipe,
    write_manifest,


# Every verb proves that a recipe is the one its folder is named after (the digest).
rule write_recipe:
    output:
        "results/{kind}/{name}-{digest}/recipe.json",
    log:
        "results/{kind}/{name}-{digest}/logs/recipe.log",
    params:
        recipe=recipe,
    shell:
        "printf '%s\n' {params.recipe:q} > {output} 2> {log}"


rule fetch_index:
    input:
        ancient("results/data/{name}-{digest}/recipe.json"),
    output:
        "results/data/{name}-{digest}/index.tsv",
    log:
        "results/data/{name}-{digest}/logs/index.log",
    shell:
        "python -m mdm index {input} > {log} 2>&1"


rule make_shard:
    input:
        recipe=ancient("results/data/{name}-{digest}/recipe.json"),
        index=ancient("results/data/{name}-{digest}/index.tsv"),
    output:
        "results/data/{name}-{digest}/shards/{shard}.tar",
        "results/data/{name}-{digest}/shards/{shard}.json",
    log:
        "results/data/{name}-{digest}/logs/shard-{shard}.log",
    benchmark:
        "results/data/{name}-{digest}/logs/shard-{shard}.benchmark.tsv"
    shell:
        "python -m mdm shard {input.recipe} --shard {wildcards.shard} > {log} 2>&1"


rule write_manifest:
    input:
        recipe=ancient("results/data/{name}-{digest}/recipe.json"),
        shards=ancient(shards),
    output:
        "results/data/{name}-{digest}/manifest.json",
    log:
        "results/data/{name}-{digest}/logs/manifest.log",
    shell:
        "python -m mdm manifest {input.recipe} > {log} 2>&1"


rule embed_text:
    input:
        recipe=ancient("results/text/{name}-{digest}/recipe.json"),
        data=ancient(partial(parents, "text")),
    output:
        "results/text/{name}-{digest}/embeddings.safetensors",
        "results/text/{name}-{digest}/manifest.json",
    log:
        "results/text/{name}-{digest}/logs/embed.log",
    benchmark:
        "results/text/{name}-{digest}/logs/embed.benchmark.tsv"
    shell:
        "python -m mdm --threads {threads} embed {input.recipe} > {log} 2>&1"
