"""Artifacts made by the functions behind the verbs, in this process and without Snakemake."""

from mdm.data.shards.shard import index_data, write_manifest, write_shards
from mdm.data.text.cache import embed
from mdm.evaluate.audit import measure_audit
from mdm.evaluate.generate import generate
from mdm.files.atomic import write_atomic
from mdm.train.export import export
from mdm.train.loop import train


def make(plan, ref, results):
    """One artifact and all that it is made from, by the functions behind the verbs."""
    recipe = results / ref / "recipe.json"
    if (results / ref / "manifest.json").is_file():
        return
    for parent in plan.parents(ref):
        make(plan, parent, results)
    write_atomic(recipe, plan.recipe_text(ref))
    plan.write_handling(results)
    kind = ref.split("/")[0]
    if kind == "data":
        index_data(recipe)
        for job in plan.shard_jobs(ref):
            write_shards(recipe, *(int(number) for number in job.split("-")))
        write_manifest(recipe)
    elif kind == "train":
        train(recipe, recipe.with_name("final.ckpt"), None, 60.0)
        export(recipe)
    else:
        {"text": embed, "samples": generate, "audit": measure_audit}[kind](recipe)
