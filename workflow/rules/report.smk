# The page people read, one page per ablation, and Snakemake's own report as provenance.


localrules:
    write_report,
    write_ablation_report,
    publish,


rule write_report:
    input:
        f"{RESULTS}/metrics.csv",
        f"{RESULTS}/claims.json",
        tables=rules.make_tables.output,
        figures=expand(f"{RESULTS}/figures/{{file}}", file=products.figure_files(STUDY)),
        study=STUDY.path,
        code=products.code("page"),
    output:
        f"{REPORTS}/index.html",
    log:
        f"{RESULTS}/logs/report.log",
    params:
        study=study_options,
    shell:
        "python -m mdm report {params.study} --out {output} > {log} 2>&1"


rule write_ablation_report:
    input:
        ablation_artifacts,
        study=STUDY.path,
        drawing=products.figure_module("ablation"),
        code=products.code("numbers", "page", "tables", "pictures"),
    output:
        f"{REPORTS}/ablations/{{ablation}}.html",
    log:
        f"{RESULTS}/logs/ablation-{{ablation}}.log",
    params:
        study=study_options,
    shell:
        "python -m mdm report {params.study} --ablation {wildcards.ablation} --out {output} > {log} 2>&1"


# reports/ itself shows the study that ran last. Its name is a parameter: another study publishes its own pages again.
rule publish:
    input:
        f"{REPORTS}/{{page}}.html",
    output:
        "reports/{page}.html",
    log:
        f"{RESULTS}/logs/publish-{{page}}.log",
    localrule: True
    params:
        study=STUDY.name,
    shell:
        "cp {input} {output} 2> {log}"


# Snakemake's own report reads its records of the finished run, so it cannot be a rule of that run.
onsuccess:
    if os.path.exists(f"{REPORTS}/index.html"):
        shell(
            "python -m snakemake {SAME_STUDY} --report {REPORTS}/provenance.zip > {RESULTS}/logs/provenance.log 2>&1"
            " && cp {REPORTS}/provenance.zip reports/provenance.zip"
        )
        for stranger in products.foreign_pages(STUDY, "reports"):
            os.remove(stranger)
