# The entry point: `snakemake` here runs the study named in config/config.yaml.
include: "workflow/Snakefile"


# An included file cannot choose the default target, so it is chosen here.
workflow.default_target = "all"
