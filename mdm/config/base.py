"""What every group of settings has in common: unknown keys are refused, and errors say what to write instead."""

import difflib
from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

NAME = r"^[a-z0-9][a-z0-9.]*(-[a-z0-9.]+)*$"
SHA256 = r"^[0-9a-f]{64}$"
Name = Annotated[str, Field(pattern=NAME, max_length=40)]
Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
# No computer holds wider or longer networks; sizes in foreign files and slips of the finger must not overflow.
Width = Annotated[int, Field(gt=0, le=2**20)]
Layers = Annotated[int, Field(ge=0, le=1000)]
Probability = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]
Model = TypeVar("Model", bound=BaseModel)


class StudyError(ValueError):
    """Something in a study file is wrong; the message says what, where, and what to write instead."""


def nearest(word: str, valid: Iterable[str]) -> str:
    """A hint: the closest valid word if there is one, and all of them."""
    words = [str(v) for v in valid]
    close = difflib.get_close_matches(str(word), words, n=1, cutoff=0.5)
    listing = ", ".join(sorted(words)) or "none"
    return (f"did you mean '{close[0]}'? " if close else "") + f"(valid: {listing})"


class Strict(BaseModel):
    """Frozen, and unknown keys are refused with the nearest valid one."""

    # No setting means anything at infinity, and "not a number" would pass many a comparison.
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    later: ClassVar[tuple[str, ...]] = ()  # settings that were added after studies had been made

    @model_serializer(mode="wrap")
    def _as_before_by_default(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Recipes (and so digests) that ask for nothing new are what they were before there was anything new."""
        fields = type(self).model_fields
        return {k: v for k, v in write(self).items() if k not in self.later or getattr(self, k) != fields[k].default}

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for key in data:
                if key not in cls.model_fields:
                    raise ValueError(f"unknown key '{key}'; {nearest(key, cls.model_fields)}")
        return data


def parse(model: type[Model], content: dict[str, Any], where: str) -> Model:
    """Validate; every problem becomes one line that starts with its place in the file."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise StudyError("\n".join(_explain(problem, where) for problem in error.errors())) from None


def require_groups(channels: Iterable[int], norm_groups: int) -> None:
    """Refuse widths that cannot be normalised in so many groups."""
    for width in channels:
        if width % norm_groups:
            raise ValueError(f"channels {width} is not divisible by norm_groups {norm_groups}")


def _explain(problem: Any, where: str) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    seen = problem.get("input")
    shown = "" if isinstance(seen, dict) or problem["type"] == "missing" else f" (seen: {seen!r})"
    return f"{where}{': ' if place else ''}{place}: {message}{shown}"
