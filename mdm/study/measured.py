"""Whether a protocol will ever have a number that a claim asks for: which networks read its pictures, and how many."""

from mdm.config import ProtocolConfig
from mdm.config.instruments import ScoreSettings
from mdm.config.sizes import Clip
from mdm.evaluate.metric_names import (
    AMONG_EACH_OTHER,
    ASKED,
    AUTOENCODER,
    COMPOSITION,
    CONSISTENCY,
    DISTANCES,
    FRECHET_DISTANCES,
    INCEPTION_SCORE,
    KERNEL_DISTANCES,
    LOW_PSNR,
    detail,
)
from mdm.evaluate.smallest import too_few
from mdm.study.audits import check_audited
from mdm.study.claims import ExpressionError, Reference
from mdm.study.runs import Run

# What a protocol must name for a family of numbers; the longest that begins a metric counts.
READ_BY = {
    "fd_judge": "judge", "kid_judge": "judge", "alignment": "judge", "fid": "inception", "fid_published": "published",
    "kid_inception": "inception", "fd_dino": "dino", "kid_dino": "dino", "clip_score": "clip", CONSISTENCY: "clip",
    "fvd": "video", **{f"kd_{kind}_{name}": name for kind in ("frames", "motion") for name in
                       ("judge", "inception", "dino")},
}  # fmt: skip
OF_CLIPS = ("kd_frames", "kd_motion", "fvd", CONSISTENCY)
OF_PICTURES = (*FRECHET_DISTANCES, *KERNEL_DISTANCES, *AMONG_EACH_OTHER, INCEPTION_SCORE, COMPOSITION, "alignment",
               "detail")  # fmt: skip
# A distance without its bias needs more pictures than the features of its network are wide.
WIDTHS = {"fid": 2048, "fd_dino": 1024, "fvd": 400}
KERNEL_OF = {network: kernel for network, (_, kernel) in DISTANCES.items()} | {"published": "kid_inception"}


def check_measured(reference: Reference, name: str, protocol: ProtocolConfig, run: Run) -> None:
    """Refuse what protocol `name` will never measure of a run: it would stay "not measured yet" for ever."""
    check_audited(reference, run)
    if reference.metric.startswith("quality_onset") and not run.points:
        raise ExpressionError(f"{reference}: '{run.name}' has no curve along its training; give its stages snapshots")
    if reference.metric in AUTOENCODER and not run.stages[-1].latents:
        raise ExpressionError(f"{reference}: '{run.name}' has no autoencoder; name a run that is trained on codes")
    if reference.metric.startswith("validation_loss") and run.stages[-1].latents:
        raise ExpressionError(
            f"{reference}: '{run.name}' is trained on codes, whose losses compare with no other run's; name a score"
        )
    if reference.metric == LOW_PSNR and not run.stages[-1].base:
        raise ExpressionError(f"{reference}: '{run.name}' enlarges nothing; name a run that ends with an upsampler")
    if protocol.drawn_only:
        if reference.metric.startswith((*OF_PICTURES, *OF_CLIPS, *READ_BY)):
            raise ExpressionError(
                f"{reference}: protocol '{name}' draws pictures and compares them with nothing; give it a "
                "reference and what to measure with, or name another protocol"
            )
        return
    _check_kind(reference, run)
    if reference.metric.startswith("detail"):
        if not protocol.spectrum:
            raise ExpressionError(f"{reference}: protocol '{name}' measures no detail; write spectrum: true in it")
        if reference.metric not in (drawn := [detail(side) for side in run.stages[-1].resolutions]):
            raise ExpressionError(f"{reference}: '{run.name}' draws no such level; write {' or '.join(drawn)}")
    _check_besides(reference, name, protocol)
    _check_read(reference, name, protocol)


def _check_kind(reference: Reference, run: Run) -> None:
    """Refuse what is of clips where pictures are drawn, and the other way round."""
    clips = isinstance(run.stages[-1].resolutions[-1], Clip)
    if reference.metric.startswith(OF_PICTURES if clips else OF_CLIPS):
        drawn, others = ("clips", "kd_frames_..., kd_motion_...") if clips else ("pictures", "a run of clips")
        raise ExpressionError(f"{reference} is not of {drawn}, which '{run.name}' draws; name {others}")


def _check_read(reference: Reference, name: str, protocol: ProtocolConfig) -> None:
    """Refuse numbers of networks that the protocol does not name, and distances that have too few pictures."""
    metric = reference.metric
    family = max((f for f in READ_BY if metric == f or metric.startswith(f"{f}_")), key=len, default=None)
    if family is None:
        return
    instrument = getattr(protocol, READ_BY[family])
    if not instrument:
        raise ExpressionError(
            f"{reference}: protocol '{name}' has no {READ_BY[family]}, which measures {metric}; give it one, or name "
            "another metric"
        )
    if family == "alignment" and not protocol.prompts:
        raise ExpressionError(f"{reference}: protocol '{name}' draws no captions to compare with; name some in prompts")
    if family == "fvd" and not f"{metric}_".startswith(f"fvd_{instrument.model}_"):
        raise ExpressionError(f"{reference}: protocol '{name}' reads clips by {instrument.model}; write its name")
    width, fewest = next((w for f, w in WIDTHS.items() if metric.startswith(f)), 0), _fewest(metric, protocol)
    if "_unbiased" in metric and fewest <= width:
        raise ExpressionError(
            f"{reference} needs more than {width} pictures on each side, the width of its network's features, and its "
            f"protocol has {fewest}; use {KERNEL_OF.get(READ_BY[family], 'the plain one')}, or more pictures"
        )


def _fewest(metric: str, protocol: ProtocolConfig) -> int:
    """Pictures on the smaller side of what is compared."""
    drawn, real, settings = protocol.num_images, protocol.num_reference, ScoreSettings(**protocol.settings)
    if metric.startswith(INCEPTION_SCORE):
        real = drawn  # of either side alone
    elif metric.startswith(AMONG_EACH_OTHER):  # of pictures whose features are kept one by one
        drawn, real = min(drawn, settings.most_drawn), min(real, protocol.keep_rows or real, settings.most_real)
    elif metric.startswith("fid_published") and protocol.published:
        real = protocol.published.num_images
    return min(drawn, real)


def _check_besides(reference: Reference, name: str, protocol: ProtocolConfig) -> None:
    """Refuse metrics that have to be asked for and are not, or that have too few pictures."""
    family, _, network = reference.metric.partition("_")
    groups = [group for group, families in ASKED.items() if family in families]
    groups += [COMPOSITION] if family == COMPOSITION else []
    groups += [INCEPTION_SCORE] if reference.metric.startswith(INCEPTION_SCORE) else []
    for group in groups:
        if group not in protocol.metrics:
            raise ExpressionError(f"{reference}: protocol '{name}' does not ask for it; write metrics: [{group}] in it")
        if group in ASKED and getattr(protocol, network.partition("_")[0], None) is None:
            raise ExpressionError(f"{reference}: protocol '{name}' reads no such features; name the network in it")
        if why := too_few(reference.metric, _fewest(reference.metric, protocol)):
            raise ExpressionError(f"{reference} is left out of tables and verdicts: {why}")
