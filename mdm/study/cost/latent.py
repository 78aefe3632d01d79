"""What latent diffusion costs beside its networks: training an autoencoder, encoding data sets, decoding pictures."""

from mdm.config.latent import SCALED_OVER
from mdm.config.recipe_latent import AutoencoderRecipe, LatentsRecipe
from mdm.model import autoencoder_arithmetic as arithmetic
from mdm.study.study import Study

BYTES = 4  # of a weight
HALF = 2  # bytes of a number of the codes


def is_latent(ref: str) -> bool:
    """Return whether an artifact is an autoencoder, or codes."""
    return ref.startswith(("autoencoder/", "latents/"))


def images(study: Study, ref: str) -> int:
    """Return the pictures that are trained on, or encoded."""
    recipe = study.recipe(ref)
    if isinstance(recipe, LatentsRecipe) or recipe.fit is None:
        return int(study.recipe(recipe.data).num_images)
    return int(recipe.fit.num_images)


def gigaflops(study: Study, ref: str) -> float:
    """Return the arithmetic of all of it."""
    recipe = study.recipe(ref)
    if isinstance(recipe, LatentsRecipe):
        network = study.recipe(recipe.autoencoder).network
        return images(study, ref) * arithmetic.gigaflops(network, "encoder")
    there, tested = (study.recipe(data).num_images for data in (recipe.data, recipe.test))
    forth, back = (arithmetic.gigaflops(recipe.network, half) for half in ("encoder", "decoder"))
    trained = recipe.fit.num_images * arithmetic.step_gigaflops(recipe.network) if recipe.fit else 0.0
    return trained + min(there, SCALED_OVER) * forth + tested * (2 * forth + back)


def kept(study: Study, ref: str) -> int:
    """Return the bytes that stay on disk."""
    recipe = study.recipe(ref)
    if isinstance(recipe, AutoencoderRecipe):
        return BYTES * arithmetic.parameters(recipe.network)
    network = study.recipe(recipe.autoencoder).network
    return images(study, ref) * 2 * network.grid**2 * network.codes * HALF


def jobs(study: Study, ref: str) -> int:
    """Return how many jobs make it."""
    return len(study.shard_jobs(ref)) if ref.startswith("latents/") else 1


def decoding(study: Study, ref: str) -> float:
    """Return the arithmetic of the autoencoder for all pictures of an artifact of samples; 0 where none is needed."""
    recipe = study.recipe(ref)
    if getattr(recipe, "autoencoder", None) is None:
        return 0.0
    network = study.recipe(recipe.autoencoder).network
    each = arithmetic.gigaflops(network, "decoder")
    each += arithmetic.gigaflops(network, "encoder") if recipe.sample.latents == "real" else 0.0
    return float(recipe.num_images * each)
