"""Settings of the text encoders; free of torch, so a study is checked before it runs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from mdm.config.base import SHA256, Count, Positive, Strict

# Raised when the same settings give other features; part of every text recipe.
ENCODER_VERSION = 2


class TinyT5Settings(Strict):
    """A T5 encoder with random weights: a pure function of the seed."""

    channels: Positive = 64
    layers: Positive = 2
    heads: Positive = 4
    seed: Count = 0
    max_tokens: Annotated[int, Field(ge=2)] = 32

    @model_validator(mode="after")
    def _heads_divide(self) -> TinyT5Settings:
        if self.channels % self.heads:
            raise ValueError(f"channels {self.channels} cannot be shared by {self.heads} heads; write a multiple")
        return self


class T5Settings(Strict):
    """T5 weights on this machine; every file that matters is named with its hash."""

    later: ClassVar = ("precision", "stored")

    path: str
    sha256: dict[str, Annotated[str, Field(pattern=SHA256)]]
    max_tokens: Annotated[int, Field(ge=2)] = 128
    precision: Literal["float32", "bf16"] = Field(
        default="float32", description="of the encoder's weights and sums; bf16 for the large ones on a GPU"
    )
    stored: Literal["float16", "bfloat16"] = Field(
        default="float16", description="how the cache holds features; float16 is finer, bfloat16 holds larger ones"
    )


ENCODERS: dict[str, type[Strict]] = {"tiny-t5": TinyT5Settings, "t5": T5Settings}
