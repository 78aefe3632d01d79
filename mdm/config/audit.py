"""Settings of the audit, which looks for copies of training pictures, and of the sizes at which copying ends."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from mdm.config.base import Name, Positive, Strict
from mdm.config.instruments import WeightsConfig
from mdm.config.training import ResourceConfig

Group = Literal[
    "copied", "calibrated", "authentic", "released", "copying_score", "similarity", "loss_gap", "text_signal"
]
USUAL: tuple[Group, ...] = ("copied", "calibrated", "authentic")
NEED_HELD_OUT = ("copying_score", "loss_gap", "text_signal")
CALIBRATED = 50  # neighbours whose mean distance calibrates the first (Carlini et al. 2023)
# ln(SNR) at which losses on training and on other pictures are compared: little noise, where copying begins.
GAP_LOG_SNR = 3.0


class AuditConfig(Strict):
    """Looking for copies of training pictures among what every run draws."""

    protocol: Name | None = Field(default=None, description="whose drawn pictures are looked at (default: the first)")
    data: Name | None = Field(default=None, description="pictures to look among (default: the run's training data)")
    held_out: Name | None = Field(
        default=None, description="real pictures that were not trained on: for copying_score, loss_gap and text_signal"
    )
    metrics: tuple[Group, ...] = Field(
        default=USUAL,
        min_length=1,
        description="copied (ratios of distances), calibrated, authentic, released (float32 as in the released code), "
        "copying_score, similarity (features of the protocol's instruments), "
        "loss_gap, text_signal (do captions of training pictures move the network more than those of held_out)",
    )
    twins: dict[str, str] = Field(
        default={}, description="run: another run, trained on other pictures; how alike both draw from the same noises"
    )
    num_images: Annotated[int, Field(ge=4)] | None = Field(
        default=None, description="drawn pictures looked at (default: all of the protocol)"
    )
    neighbours: Annotated[int, Field(ge=2, le=1000)] = Field(
        default=50, description="nearest training pictures kept; calibrated distances use 50 of them"
    )
    sscd: WeightsConfig | None = Field(
        default=None, description="TorchScript of SSCD, a network that knows copies: features for similarity"
    )
    resources: ResourceConfig = ResourceConfig()

    @field_validator("metrics")
    @classmethod
    def _each_once(cls, metrics: tuple[Group, ...]) -> tuple[Group, ...]:
        if len(set(metrics)) < len(metrics):
            raise ValueError(f"metrics {list(metrics)}: one stands twice; write each once")
        return metrics

    @model_validator(mode="after")
    def _has_what_it_compares_with(self) -> AuditConfig:
        if "calibrated" in self.metrics and self.neighbours < CALIBRATED:
            raise ValueError(
                f"neighbours {self.neighbours}: calibrated takes the mean distance to the {CALIBRATED} nearest, and of "
                f"fewer it is another measure; write {CALIBRATED} or more, or leave calibrated out of metrics"
            )
        for name in NEED_HELD_OUT:
            if name in self.metrics and self.held_out is None:
                raise ValueError(f"{name} compares training with other pictures; name such a data set in held_out")
        for name in {"loss_gap", "text_signal"} & set(self.metrics) if self.data else ():
            raise ValueError(
                f"data {self.data}: {name} compares held_out with the pictures that a run was trained on, not with "
                "others; leave out one of the two"
            )
        if self.sscd and "similarity" not in self.metrics:
            raise ValueError("sscd has no effect without similarity in metrics; write both or leave it out")
        if self.held_out and not set(NEED_HELD_OUT) & set(self.metrics):
            raise ValueError(f"held_out {self.held_out} has no effect without {' or '.join(NEED_HELD_OUT)} in metrics")
        return self


class EmmConfig(Strict):
    """Effective model memorization: the number of training pictures up to which a network copies them."""

    runs: list[str] = Field(
        min_length=1, description="runs, or ablations, that differ in their number of training pictures"
    )
    metric: str = Field(description="e.g. copied_32: a share that falls with that number")
    level: Annotated[float, Field(gt=0, lt=1)] = Field(default=0.9, description="share that still counts as copying")
    title: str = Field(default="", description="of its curve (default: its name)")
    targets: list[tuple[Positive, Annotated[float, Field(ge=0, le=100)]]] = Field(
        default=[], description="published points of this curve, [pictures, per cent]"
    )
    source: str = Field(default="", description="where the targets were published")

    @model_validator(mode="after")
    def _targets_have_a_source(self) -> EmmConfig:
        if bool(self.targets) != bool(self.source):
            raise ValueError(
                "targets and source belong together: write where the published points are from, or neither"
            )
        return self
