# From scores to tables, figures and verdicts. Each rule lists its source file, so editing a figure redraws it.


rule collect_metrics:
    input:
        artifacts=done(STUDY.measured()),
        code=SHARED_CODE,
    output:
        "results/metrics.csv",
        "results/missing.json",
    log:
        "results/logs/collect.log",
    params:
        study=study_options,
        digest=STUDY.digest,
    shell:
        "python -m mdm collect {params.study} > {log} 2>&1"


rule make_tables:
    input:
        "results/metrics.csv",
        literature=study_file.LITERATURE,
        code=[*SHARED_CODE, *TABLE_CODE],
    output:
        expand(
            "results/tables/{table}.{format}",
            table=names.table_names(STUDY),
            format=["csv", "md", "tex"],
        ),
    log:
        "results/logs/tables.log",
    params:
        study=study_options,
        digest=STUDY.digest,
    shell:
        "python -m mdm tables {params.study} > {log} 2>&1"


rule draw_figure:
    input:
        "results/metrics.csv",
        code=[*SHARED_CODE, CODE / "style.py"],
        drawing=figure_code,
    output:
        "results/figures/{figure}.svg",
        "results/figures/{figure}.png",
    log:
        "results/logs/figure-{figure}.log",
    params:
        study=study_options,
        digest=STUDY.digest,
    shell:
        "python -m mdm figure {params.study} --name {wildcards.figure} > {log} 2>&1"


rule arrange_samples:
    input:
        "results/metrics.csv",
        code=CODE / "gallery.py",
    output:
        "results/figures/samples-{run}.png",
    log:
        "results/logs/samples-{run}.log",
    params:
        study=study_options,
        digest=STUDY.digest,
    shell:
        "python -m mdm figure {params.study} --name samples-{wildcards.run} > {log} 2>&1"


rule judge_claims:
    input:
        "results/metrics.csv",
        code=[*SHARED_CODE, CODE / "claims.py", CODE / "expression.py"],
    output:
        "results/claims.json",
    log:
        "results/logs/claims.log",
    params:
        study=study_options,
        claims=STUDY.claims_digest,
    shell:
        "python -m mdm claims {params.study} > {log} 2>&1"
