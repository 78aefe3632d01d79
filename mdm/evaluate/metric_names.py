"""The name of every number that is measured, in one place: who writes a metric takes its name from here."""

from collections.abc import Iterable

# How a factor of alignment is called in scores -> the array of `labels.encode` that it compares.
FACTORS = {"colour": "colours", "shape": "shapes", "binding": "pairs", "count": "count", "relation": "relation"}
ALIGNMENTS = ("alignment", *(f"alignment_{factor}" for factor in FACTORS))
# The network whose features are compared -> its Fréchet distance and its kernel distance.
DISTANCES = {"judge": ("fd_judge", "kid_judge"), "inception": ("fid", "kid_inception")}
FRECHET_DISTANCES, KERNEL_DISTANCES = zip(*DISTANCES.values(), strict=True)
# Of the network whose codes a run is trained on: reconstruction, rate and size. All trainings of a run share it.
AUTOENCODER = ("autoencoder_psnr", "autoencoder_bits", "autoencoder_parameters")
# The same whatever the weights turn out to be: one training says all there is to say.
CERTAIN = ("train_images", "train_gigaflops", "parameters", "network_evaluations_per_image", *AUTOENCODER)
MEASURABLE = (
    *(f"{d}{kind}{end}" for d in FRECHET_DISTANCES for kind in ("", "_unbiased") for end in ("", "_floor")),
    *KERNEL_DISTANCES, "clip_score", "clip_score_real",
    *ALIGNMENTS, *(f"{a}{end}" for a in ALIGNMENTS for end in ("_chance", "_real")),
    "train_loss", "train_images", "train_gigaflops", "train_seconds", "images_per_second", "parameters",
    "sample_seconds", "sample_images_per_second", "network_evaluations_per_image", *AUTOENCODER,
)  # fmt: skip


def detail(side: int | str) -> str:
    """Fine detail of the level of this side, as a multiple of real pictures'."""
    return f"detail_{side}"


# ln(SNR) of the unshifted schedule at which networks are asked for their loss beyond the optimum: bins 0, 1, ... Where
# there is less noise, any picture of a set of some thousands is known for certain; where there is more, hardly any is.
LOG_SNRS = (-7.0, -5.0, -3.0, -1.0, 1.0, 3.0, 5.0, 7.0)


def excess_loss(side: int | str, place: int | None = None) -> str:
    """Loss of the level of this side beyond the optimum: over all noise bins, or in one of them."""
    return f"excess_loss_{side}" if place is None else f"excess_loss_{side}_b{place}"


def measurable(resolutions: Iterable[int], excess: bool = False) -> set[str]:
    """Every metric name a claim may use, for a study that trains these resolutions; `excess`: and asks for that."""
    sides = tuple(resolutions)
    found = {*MEASURABLE, *(f"validation_loss_{side}" for side in sides), *map(detail, sides)}
    places = (None, *range(len(LOG_SNRS))) if excess else ()
    return found | {excess_loss(side, place) for side in sides for place in places}


# What an audit may say of the pictures of a level, the share of copies by the usual rule first.
COPIES = ("copied", "copied_distinct", "copied_quarter", "copied_half", "copied_released", "calibrated", "authentic")
LARGEST = "copied_max"  # of copied over the snapshots of a training, as the paper reports it
TEXT_SIGNAL = "text_signal"  # of the network, all levels together
AGREEMENT = "agreement"  # of two runs that draw from the same noises
OF_LEVELS = (*COPIES, LARGEST, "copying_score", "loss_gap", AGREEMENT)
# Of features, for each network that reads them.
SIMILARITIES = ("", "_share", "_p75", "_p90", "_p95", "_train")


def at_level(name: str, side: int | str) -> str:
    """A metric of the audit, of the pictures of this side."""
    return f"{name}_{side}"


def similarity(extractor: str, kind: str = "") -> str:
    """Cosine of features to the most similar training picture: mean, share above 0.5, percentiles, baseline."""
    return f"similarity_{extractor}{kind}"


EMM = "emm"  # number of training pictures up to which a network copies them, by the names of curves instead of runs
