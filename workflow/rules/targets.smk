# Names that people type: all, data, report, every ablation, every group.


localrules:
    all,
    data,
    report,


rule all:
    default_target: True
    input:
        "reports/index.html",
        expand("reports/ablations/{ablation}.html", ablation=STUDY.ablations),


rule data:
    input:
        done(STUDY.of_kind("data", "text")),


rule report:
    input:
        "reports/index.html",


for ablation in STUDY.ablations:

    rule:
        name:
            ablation
        input:
            f"reports/ablations/{ablation}.html",
        localrule: True


for group, members in study.group_members(STUDY).items():

    rule:
        name:
            group
        input:
            expand("reports/ablations/{ablation}.html", ablation=members),
        localrule: True
