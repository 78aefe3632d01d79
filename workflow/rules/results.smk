# From scores to tables, figures and verdicts. Each rule lists its source file, so editing a figure redraws it.


# Seconds each: on a cluster they run where Snakemake does, instead of waiting in the queue of the GPUs.
localrules:
    collect_metrics,
    make_tables,
    draw_figure,
    arrange_samples,
    judge_claims,


rule collect_metrics:
    input:
        artifacts=done(STUDY.measured()),
        code=products.code("numbers"),
    output:
        expand(f"{RESULTS}/{{file}}", file=products.number_names(STUDY)),
    log:
        f"{RESULTS}/logs/collect.log",
    params:
        study=study_options,
        digest=STUDY.digest,
    shell:
        "python -m mdm collect {params.study} > {log} 2>&1"


rule make_tables:
    input:
        f"{RESULTS}/metrics.csv",
        literature=study.LITERATURE,
        code=products.code("numbers", "tables"),
    output:
        expand(
            f"{RESULTS}/tables/{{table}}.{{format}}",
            table=products.table_names(STUDY),
            format=["csv", "md", "tex"],
        ),
    log:
        f"{RESULTS}/logs/tables.log",
    params:
        study=study_options,
        digest=STUDY.digest,
    shell:
        "python -m mdm tables {params.study} > {log} 2>&1"


rule draw_figure:
    input:
        f"{RESULTS}/metrics.csv",
        code=products.code("numbers", "figures"),
        drawing=figure_code,
    output:
        f"{RESULTS}/figures/{{figure}}.svg",
        f"{RESULTS}/figures/{{figure}}.png",
    log:
        f"{RESULTS}/logs/figure-{{figure}}.log",
    params:
        study=study_options,
        digest=STUDY.digest,
    shell:
        "python -m mdm figure {params.study} --name {wildcards.figure} > {log} 2>&1"


rule arrange_samples:
    input:
        f"{RESULTS}/metrics.csv",
        code=products.code("pictures"),
    output:
        f"{RESULTS}/figures/samples-{{run}}.png",
    log:
        f"{RESULTS}/logs/samples-{{run}}.log",
    params:
        study=study_options,
        digest=STUDY.digest,
    shell:
        "python -m mdm figure {params.study} --name samples-{wildcards.run} > {log} 2>&1"


rule judge_claims:
    input:
        f"{RESULTS}/metrics.csv",
        code=products.code("numbers", "claims"),
    output:
        f"{RESULTS}/claims.json",
    log:
        f"{RESULTS}/logs/claims.log",
    params:
        study=study_options,
        claims=STUDY.claims_digest,
    shell:
        "python -m mdm claims {params.study} > {log} 2>&1"
