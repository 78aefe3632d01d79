"""Settings of the measuring networks and of scores; free of torch, so a study is checked before it runs."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from mdm.config.base import SHA256, Positive, Seed, Strict

Asked = Literal["precision_recall", "density_coverage", "inception_score", "composition"]
VIDEO_NETWORKS = ("s3d", "mvit_v2_s", "swin3d_t")  # of torchvision
Rate = Annotated[float, Field(gt=0)]
JUDGE_STRIDE = 8  # pixels of a judge's cell


class WeightsConfig(Strict):
    """Weights on disk, named by content: the path may differ between machines, the hash may not."""

    later: ClassVar = ("activation",)

    path: str = Field(description="file, or for CLIP also a folder of open_clip")
    sha256: Annotated[str, Field(pattern=SHA256)] | None = Field(description="null plans a study, but nothing runs")
    model: str | None = Field(default=None, description="open_clip architecture, e.g. ViT-B-16-quickgelu")
    activation: Literal["gelu"] | None = Field(
        default=None, description="of weights whose architecture open_clip knows with two: gelu for those not by OpenAI"
    )


class PublishedConfig(Strict):
    """Mean and covariance of Inception's features of a reference set, as its authors give them out."""

    path: str = Field(description="an .npz with the arrays mu and sigma, as of ADM's evaluation")
    sha256: Annotated[str, Field(pattern=SHA256)] | None = Field(
        default=None, description="null plans a study, but nothing runs"
    )
    num_images: Positive = Field(description="pictures that the statistics are of")
    preparation: str = Field(min_length=1, description="how these were cut and resized, as its authors say")


class FitSettings(Strict):
    """Length and rate of the training of a measuring network."""

    seed: Seed = 0
    num_images: Positive = Field(description="pictures shown, with repetition")
    batch_images: Positive
    learning_rate: Rate = Field(default=3e-3, description="biases, norms, embeddings (AdamW)")
    matrix_rate: Rate = Field(default=0.05, description="weights of layers (orthogonal momentum)")
    weight_decay: Annotated[float, Field(ge=0)] = 0.02


class JudgeSettings(FitSettings):
    """A judge; the defaults train in a minute on one core."""

    resolution: Annotated[int, Field(ge=2 * JUDGE_STRIDE)] = 64
    channels: tuple[Positive, Positive, Positive] = (24, 48, 64)
    num_images: Positive = 40_000
    batch_images: Positive = 32

    @field_validator("resolution")
    @classmethod
    def _has_whole_cells(cls, resolution: int) -> int:
        if resolution % JUDGE_STRIDE:
            raise ValueError(
                f"resolution {resolution} is not a multiple of {JUDGE_STRIDE}, the size of a judge's cells"
            )
        return resolution


class ClipSettings(FitSettings):
    """A tiny CLIP; the defaults train in a minute on one core."""

    resolution: Annotated[int, Field(ge=32, multiple_of=32)] = 64
    embedding: Positive = 64
    image_width: Annotated[int, Field(ge=4, multiple_of=4)] = 16
    text_width: Annotated[int, Field(ge=32, multiple_of=32)] = 64
    text_layers: Positive = 2
    context: Annotated[int, Field(ge=3)] = Field(default=32, description="tokens of a caption that are read")
    num_images: Positive = 20_000
    batch_images: Positive = 128
    learning_rate: Rate = 1e-3
    matrix_rate: Rate = 0.02


class ScoreSettings(Strict):
    """Settings of a protocol that concern its scores."""

    later: ClassVar = ("precision_nearest", "coverage_nearest", "most_drawn", "most_real")

    chance_shifts: Positive = Field(default=16, description="other captions each picture is scored against")
    precision_nearest: Positive = Field(default=3, description="balls of precision and recall reach to this neighbour")
    coverage_nearest: Positive = Field(default=5, description="balls of density and coverage reach to this neighbour")
    most_drawn: Positive = Field(default=10_000, description="drawn pictures of precision, recall, density, coverage")
    most_real: Positive = Field(default=10_000, description="real pictures of precision, recall, density, coverage")
