# Latent diffusion: autoencoders, and the codes of data sets by them.


rule train_autoencoder:
    input:
        recipe=ancient("results/autoencoder/{name}-{digest}/recipe.json"),
        data=ancient(partial(parents, "autoencoder")),
    output:
        "results/autoencoder/{name}-{digest}/weights.safetensors",
        "results/autoencoder/{name}-{digest}/autoencoder.json",
        "results/autoencoder/{name}-{digest}/manifest.json",
    log:
        "results/autoencoder/{name}-{digest}/logs/train.log",
    benchmark:
        "results/autoencoder/{name}-{digest}/logs/train.benchmark.tsv"
    resources:
        runtime=partial(resource, "autoencoder", "minutes"),
        gpu=partial(resource, "autoencoder", "gpus"),
        device=partial(device, "autoencoder"),
        cpus_per_task=partial(resource, "autoencoder", "cpus"),
        mem_mb=partial(resource, "autoencoder", "memory_mb"),
    shell:
        "exec python -m mdm --threads {resources.cpus_per_task} autoencoder {input.recipe} > {log} 2>&1"


# As with pictures and captions, the shards are no outputs: what is whole is left alone by a job that starts again.
rule encode_latents:
    input:
        recipe=ancient("results/latents/{name}-{digest}/recipe.json"),
        parents=ancient(partial(parents, "latents")),
    output:
        "results/latents/{name}-{digest}/shards/{shards}.done",
    log:
        "results/latents/{name}-{digest}/logs/encode-{shards}.log",
    benchmark:
        "results/latents/{name}-{digest}/logs/encode-{shards}.benchmark.tsv"
    resources:
        runtime=partial(resource, "latents", "minutes"),
        gpu=partial(resource, "latents", "gpus"),
        device=partial(device, "latents"),
        cpus_per_task=partial(resource, "latents", "cpus"),
        mem_mb=partial(resource, "latents", "memory_mb"),
    shell:
        "exec python -m mdm --threads {resources.cpus_per_task} encode {input.recipe} --shard {wildcards.shards}"
        " > {log} 2>&1"


# Reads every shard to prove it.
rule gather_codes:
    input:
        recipe=ancient("results/latents/{name}-{digest}/recipe.json"),
        parents=ancient(partial(parents, "latents")),
        shards=ancient(partial(shards, "latents")),
    output:
        "results/latents/{name}-{digest}/manifest.json",
    log:
        "results/latents/{name}-{digest}/logs/gather.log",
    resources:
        runtime=partial(resource, "latents", "minutes"),
        mem_mb=partial(resource, "latents", "memory_mb"),
    shell:
        "python -m mdm manifest {input.recipe} > {log} 2>&1"
