"""What each measured number is called, which direction is better, and how it is written down."""

import re
from dataclasses import dataclass, replace

from mdm.evaluate.metric_names import ALIGNMENTS, FRAME_ENDS
from mdm.report.quantity import Quantity

EVALUATION, TRAINING, COST, FRAME = "evaluation", "training", "cost", "frame"
AUDIT = "audit"  # in a table of its own; elsewhere where a study measures nothing but copies
BIN = re.compile(r"excess_loss_(\d+)_b(\d+)")


@dataclass(frozen=True)
class Metric:
    """How one metric is shown; `name` may be a prefix that covers a family (fd_ covers fd_judge)."""

    name: str
    title: str
    better: str = ""  # "lower", "higher" or "" when no direction is better
    percent: bool = False
    main: bool = False
    kind: str = EVALUATION

    @property
    def heading(self) -> str:
        """Title with the direction that is better and the unit, as a column heading."""
        arrow = {"lower": "\u00a0↓", "higher": "\u00a0↑"}.get(self.better, "")  # no line break before the arrow
        unit = "\u00a0(%)" if self.percent else ""
        return f"{self.title}{unit}{arrow}"


# Families: the rest of the name becomes part of the title. The order is the order of the columns.
FAMILIES = (
    Metric("fd", "Fréchet distance", "lower", main=True),
    Metric("fid", "Fréchet distance", "lower", main=True),
    Metric("kid", "Kernel distance", "lower"),
    Metric("kd_frames", "Kernel distance of frames", "lower", main=True),
    Metric("kd_motion", "Kernel distance of motion", "lower", main=True),
    Metric("frame_consistency", "Likeness of neighbouring frames"),
    Metric("fvd", "Fréchet video distance", "lower", main=True),
    Metric("composition", "Composition", "higher", percent=True),
    Metric("precision", "Precision", "higher", percent=True),
    Metric("recall", "Recall", "higher", percent=True),
    Metric("density", "Density", "higher"),
    Metric("coverage", "Coverage", "higher", percent=True),
    Metric("inception_score", "Inception Score", "higher"),
    Metric("alignment", "Alignment", "higher", percent=True),
    Metric("clip_score", "CLIP score", "higher", main=True),
    Metric("detail", "Fine detail over that of real pictures"),
    Metric("excess_loss", "Loss beyond the optimum", "lower"),
    Metric("copied", "Copies", "lower", percent=True, main=True, kind=AUDIT),
    Metric("copied_max", "Copies, most of all snapshots", "lower", percent=True, kind=AUDIT),
    Metric("copied_onset", "Pictures shown until half are copies", kind=AUDIT),
    Metric("quality_onset", "Pictures shown until as good as it gets", kind=TRAINING),
    Metric("copied_distinct", "Copies among distinct pictures", "lower", percent=True, kind=AUDIT),
    Metric("copied_quarter", "Copies, threshold 1/4", "lower", percent=True, kind=AUDIT),
    Metric("copied_half", "Copies, threshold 1/2", "lower", percent=True, kind=AUDIT),
    Metric("copied_released", "Copies, released arithmetic", "lower", percent=True, kind=AUDIT),
    Metric("calibrated", "Copies by calibrated distance", "lower", percent=True, kind=AUDIT),
    Metric("authentic", "Authentic", "higher", percent=True, kind=AUDIT),
    Metric("copying_score", "Data-copying score", kind=AUDIT),
    Metric("loss_gap", "Loss gap", "lower", percent=True, kind=AUDIT),
    Metric("agreement", "Agreement with its twin", kind=AUDIT),
    Metric("text_signal", "Captions of training pictures told from others (AUC)", kind=AUDIT),
    Metric("similarity", "Similarity to training pictures", kind=AUDIT),
    Metric("emm", "Pictures up to which it copies (EMM)", kind=TRAINING),
    Metric("validation_loss", "Validation loss", "lower", kind=TRAINING),
    Metric("train_loss", "Training loss", "lower", kind=TRAINING),
    Metric("autoencoder_psnr", "PSNR of the autoencoder's reconstructions (dB)", "higher", kind=TRAINING),
    Metric("autoencoder_bits", "Rate of the autoencoder's codes (bits per picture)", kind=TRAINING),
    Metric("train_images", "Pictures shown in training", kind=COST),
    Metric("train_gigaflops", "Training compute (GFLOP)", "lower", kind=COST),
    Metric("train_seconds", "Training seconds", "lower", kind=COST),
    Metric("images_per_second", "Training pictures per second", "higher", kind=COST),
    Metric("sample_images_per_second", "Sampled pictures per second", "higher", kind=COST),
    Metric("sample_seconds", "Sampling seconds", "lower", kind=COST),
    Metric("network_evaluations_per_image", "Network calls per picture", "lower", kind=COST),
    Metric("parameters", "Parameters", kind=COST),
    Metric("low_psnr", "Enlarged pictures against what they were made from (dB)", "higher", kind=COST),
    Metric("autoencoder_parameters", "Parameters of the autoencoder", kind=COST),
)
# Members whose title is not simply "family (rest)".
TITLES = {
    "composition": "Composition, mean of tasks",
    "alignment": "Alignment, all factors", "fd_judge_unbiased": "Fréchet distance (judge), unbiased",
    "fid": "FID (Inception)", "fid_unbiased": "FID (Inception), unbiased",
    "fid_published": "FID against published statistics",
    "fid_published_unbiased": "FID against published statistics, unbiased",
    "fd_dino": "FD-DINOv2", "fd_dino_unbiased": "FD-DINOv2, unbiased", "kid_dino": "Kernel distance (DINOv2)",
}  # fmt: skip


def shown(name: str, quantity: Quantity | None, difference: bool = False) -> Quantity | None:
    """The quantity in the unit of its column: shares as per cent, whose intervals end at none and at all."""
    if quantity is None or not describe(name).percent:
        return quantity
    if not difference and not name.startswith("loss_gap") and quantity.low is not None and quantity.high is not None:
        quantity = replace(quantity, low=max(0.0, quantity.low), high=min(1.0, quantity.high))
    return quantity.scaled(100)


def describe(name: str) -> Metric:
    """The metric's description; an unknown metric is shown under its own name, without a direction."""
    if name.endswith(FRAME_ENDS):
        base, _, end = name.rpartition("_")
        return replace(describe(base), name=name, title=f"{describe(base).title}, {end}", main=False, kind=FRAME)
    if found := BIN.fullmatch(name):  # for claims and excess.csv: a table of all would have a column for each
        title = f"Loss beyond the optimum ({found[1]} px, bin {found[2]})"
        return Metric(name, title, "lower", kind=TRAINING)
    place = _family(name)
    if place == len(FAMILIES):
        return Metric(name, name.replace("_", " "))
    family = FAMILIES[place]
    rest = name[len(family.name) + 1 :].replace("_", " ")
    rest += " px" if family.kind == AUDIT and rest.isdecimal() else ""
    title = TITLES.get(name) or (f"{family.title} ({rest})" if rest else family.title)
    return replace(family, name=name, title=title, main=family.main or name == "alignment")


def _family(name: str) -> int:
    """The place of a metric's family in FAMILIES, its length where there is none."""
    found = [i for i, f in enumerate(FAMILIES) if name == f.name or name.startswith(f.name + "_")]
    return max(found, key=lambda i: len(FAMILIES[i].name), default=len(FAMILIES))


def position(name: str) -> tuple[int, int, str]:
    """Sorting key: the order of FAMILIES, then of FACTORS, then the name."""
    return _family(name), ALIGNMENTS.index(name) if name in ALIGNMENTS else len(ALIGNMENTS), name
