"""The name of every number that is measured, in one place: who writes a metric takes its name from here."""

from collections.abc import Iterable

from mdm.config.instruments import VIDEO_NETWORKS

# How a factor of alignment is called in scores -> the array of `labels.encode` that it compares.
FACTORS = {"colour": "colours", "shape": "shapes", "binding": "pairs", "count": "count", "relation": "relation"}
ALIGNMENTS = ("alignment", *(f"alignment_{factor}" for factor in FACTORS))
# The network whose features are compared -> its Fréchet distance and its kernel distance.
DISTANCES = {
    "judge": ("fd_judge", "kid_judge"), "inception": ("fid", "kid_inception"), "dino": ("fd_dino", "kid_dino"),
}  # fmt: skip
FRECHET_DISTANCES, KERNEL_DISTANCES = zip(*DISTANCES.values(), strict=True)
# What a protocol may ask for besides (`metrics`) -> its families, each of every network whose features are compared.
ASKED = {"precision_recall": ("precision", "recall"), "density_coverage": ("density", "coverage")}
# Of clips, by the network that reads their frames: what these show, whatever their order, and what changes from one to
# the next; the frame of both is what the same real clips get whose motion was destroyed in one of three ways.
CLIP_DISTANCES = tuple(f"{kind}_{network}" for network in DISTANCES for kind in ("kd_frames", "kd_motion"))
DESTROYED = ("reversed", "frozen", "shuffled")
COMPOSITION = "composition"
# GenEval's tasks -> the factor of alignment that each is about.
TASKS = {
    "single_object": "shape", "two_objects": "shape", "counting": "count", "colours": "colour",
    "position": "relation", "attribution": "binding",
}  # fmt: skip
COMPOSITIONS = (COMPOSITION, *(f"{COMPOSITION}_{task}" for task in TASKS))
VIDEO_DISTANCES = tuple(f"fvd_{network}" for network in VIDEO_NETWORKS)
CONSISTENCY = "frame_consistency"
INCEPTION_SCORE = "inception_score"
AMONG_EACH_OTHER = tuple(f"{family}_{network}" for pair in ASKED.values() for family in pair for network in DISTANCES)
# Of the network whose codes a run is trained on: reconstruction, rate and size. All trainings of a run share it.
AUTOENCODER = ("autoencoder_psnr", "autoencoder_bits", "autoencoder_parameters")
# The same whatever the weights turn out to be: one training says all there is to say.
CERTAIN = ("train_images", "train_gigaflops", "parameters", "network_evaluations_per_image", *AUTOENCODER)
# What a score is framed by, measured beside it: guessing, and the best that real pictures reach.
FRAME_ENDS = ("_chance", "_floor", "_real", *(f"_{way}" for way in DESTROYED))
MEASURABLE = (
    *(f"{d}{kind}{end}" for d in FRECHET_DISTANCES for kind in ("", "_unbiased") for end in ("", "_floor")),
    "fid_published", "fid_published_unbiased", *KERNEL_DISTANCES,
    *(f"{name}{end}" for name in AMONG_EACH_OTHER for end in ("", "_floor")),
    *(f"{family}_{network}_real" for family in ASKED["density_coverage"] for network in DISTANCES),
    *(f"{name}{end}" for name in CLIP_DISTANCES for end in ("", "_floor", *(f"_{way}" for way in DESTROYED))),
    *(f"{name}{end}" for name in COMPOSITIONS for end in ("", "_real")),
    *(f"{name}{kind}{end}" for name in VIDEO_DISTANCES for kind in ("", "_unbiased") for end in ("", "_floor")),
    CONSISTENCY, f"{CONSISTENCY}_real", INCEPTION_SCORE, f"{INCEPTION_SCORE}_real", "clip_score", "clip_score_real",
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
COPYING_ONSET = "copied_onset"  # pictures shown in training until half of what is drawn are copies
TEXT_SIGNAL = "text_signal"  # of the network, all levels together
AGREEMENT = "agreement"  # of two runs that draw from the same noises
OF_LEVELS = (*COPIES, LARGEST, COPYING_ONSET, "copying_score", "loss_gap", AGREEMENT)
# Of features, for each network that reads them.
SIMILARITIES = ("", "_share", "_p75", "_p90", "_p95", "_train")


def at_level(name: str, side: int | str) -> str:
    """A metric of the audit, of the pictures of this side."""
    return f"{name}_{side}"


def similarity(extractor: str, kind: str = "") -> str:
    """Cosine of features to the most similar training picture: mean, share above 0.5, percentiles, baseline."""
    return f"similarity_{extractor}{kind}"


def quality_onset(extractor: str) -> str:
    """Pictures shown in training until the distance by a network is within a tenth of the best that it ever is."""
    return f"quality_onset_{extractor}"


EMM = "emm"  # number of training pictures up to which a network copies them, by the names of curves instead of runs
