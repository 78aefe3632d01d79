# The page people read, one page per ablation, and Snakemake's own report as provenance.


rule write_report:
    input:
        "results/metrics.csv",
        "results/claims.json",
        tables=rules.make_tables.output,
        figures=expand("results/figures/{file}", file=names.figure_files(STUDY)),
        study=STUDY.path,
        code=PAGE_CODE,
    output:
        "reports/index.html",
    log:
        "results/logs/report.log",
    params:
        study=study_options,
    shell:
        "python -m mdm report {params.study} --out {output} > {log} 2>&1"


rule write_ablation_report:
    input:
        ablation_artifacts,
        study=STUDY.path,
        code=[
            *SHARED_CODE,
            *PAGE_CODE,
            CODE / "figure_ablation.py",
            CODE / "tables.py",
            CODE / "gallery.py",
        ],
    output:
        "reports/ablations/{ablation}.html",
    log:
        "results/logs/ablation-{ablation}.log",
    params:
        study=study_options,
    shell:
        "python -m mdm report {params.study} --ablation {wildcards.ablation} --out {output} > {log} 2>&1"


# Snakemake's own report reads its records of the finished run, so it cannot be a rule of that run.
onsuccess:
    if os.path.exists("reports/index.html"):
        shell(
            "python -m snakemake {SAME_STUDY} --report reports/provenance.zip > results/logs/provenance.log 2>&1"
        )
