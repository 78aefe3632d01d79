"""A small study of latent diffusion, on pictures of 32 px and codes of 8, and what its jobs make."""

from mdm.data.shards.shard import index_data, write_manifest, write_shard
from mdm.data.text.cache import embed
from mdm.evaluate.autoencoder import train_autoencoder
from mdm.evaluate.encode import encode
from mdm.files.atomic import write_json
from mdm.study import study

CODES = {"resolution": 32, "factor": 4, "channels": [32], "norm_groups": 8}
OVERRIDES = {
    "data.scenes-train.settings.num_images": 96,
    "data.scenes-new.settings.num_images": 32,
    "data.scenes-train.shard_images": 40,
    "protocols.zero-shot.num_images": 8,
    "protocols.zero-shot.num_reference": 16,
    "base.train.validate_images": 32,
    "autoencoders": {
        "tiny-f4": {
            "data": "scenes-train", "test": "scenes-new", "network": CODES, "shards_per_job": 2,
            "settings": {"num_images": 3200, "batch_images": 8},
        }
    },
    "ablations.latent": {
        "title": "Latent diffusion",
        "question": "Is it better to train on codes?",
        "group": "training",
        "set": {
            "autoencoder": "tiny-f4",
            "model.levels": {8: {"channels": [32], "resnets": [1], "attention": [1], "norm_groups": 16}},
            "stages": {"z8": {"resolutions": [8], "num_images": 128, "slice_images": 64}},
        },
        "cases": {"drawn": {"sample.steps": 3}, "reconstruction": {"sample.latents": "real"}},
    },
}  # fmt: skip


def load(**changes):
    """The quick study with a latent ablation, some settings changed: path__to__key=value."""
    return study.load("quick", {**OVERRIDES, **changes})


def run_of(loaded, case="drawn"):
    return loaded.runs_named(f"latent={case}")[0]


MAKERS = {"autoencoder": train_autoencoder, "latents": encode, "text": embed}


def make(results, loaded, ref):
    """Make an artifact that is no training, after everything behind it; returns its folder."""
    folder = results / ref
    if (folder / "manifest.json").is_file():
        return folder
    write_json(folder / "recipe.json", loaded.recipe(ref).plain())
    for parent in loaded.parents(ref):
        if not parent.startswith(("train/", "judge/", "clip/")):
            make(results, loaded, parent)
    if ref.startswith("data/"):
        recipe = folder / "recipe.json"
        index_data(recipe)
        jobs = [tuple(map(int, job.split("-"))) for job in loaded.shard_jobs(ref)]
        for first, last in jobs:
            for number in range(first, last + 1):
                write_shard(recipe, number)
        write_manifest(recipe)
    elif maker := MAKERS.get(ref.split("/")[0]):
        maker(folder / "recipe.json")
    return folder
