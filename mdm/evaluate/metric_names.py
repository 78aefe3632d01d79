"""The name of every number that is measured, in one place: who writes a metric takes its name from here."""

from collections.abc import Iterable

# How a factor of alignment is called in scores -> the array of `labels.encode` that it compares.
FACTORS = {"colour": "colours", "shape": "shapes", "binding": "pairs", "count": "count", "relation": "relation"}
ALIGNMENTS = ("alignment", *(f"alignment_{factor}" for factor in FACTORS))
# The network whose features are compared -> its Fréchet distance and its kernel distance.
DISTANCES = {"judge": ("fd_judge", "kid_judge"), "inception": ("fid", "kid_inception")}
FRECHET_DISTANCES, KERNEL_DISTANCES = zip(*DISTANCES.values(), strict=True)
# The same whatever the weights turn out to be: one training says all there is to say.
CERTAIN = ("train_images", "train_gigaflops", "parameters", "network_evaluations_per_image")
MEASURABLE = (
    *(f"{d}{kind}{end}" for d in FRECHET_DISTANCES for kind in ("", "_unbiased") for end in ("", "_floor")),
    *KERNEL_DISTANCES, "clip_score", "clip_score_real",
    *ALIGNMENTS, *(f"{a}{end}" for a in ALIGNMENTS for end in ("_chance", "_real")),
    "train_loss", "train_images", "train_gigaflops", "train_seconds", "images_per_second", "parameters",
    "sample_seconds", "sample_images_per_second", "network_evaluations_per_image",
)  # fmt: skip


def detail(side: int | str) -> str:
    """Fine detail of the level of this side, as a multiple of real pictures'."""
    return f"detail_{side}"


def excess_loss(side: int | str) -> str:
    """Loss of the level of this side beyond the optimum."""
    return f"excess_loss_{side}"


def measurable(resolutions: Iterable[int], excess: bool = False) -> set[str]:
    """Every metric name a claim may use, for a study that trains these resolutions; `excess`: and asks for that."""
    sides = tuple(resolutions)
    found = {*MEASURABLE, *(f"validation_loss_{side}" for side in sides), *map(detail, sides)}
    return found | set(map(excess_loss, sides) if excess else ())
