"""Which rows of a list are wanted, by what the list itself says of them: scores of CLIP, safety tags, sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mdm.config import Strict, nearest
from mdm.manifest import ArtifactError


class Filter(Strict):
    """A condition on one column; a row without a value there, or with a word where a number is asked for, is out."""

    column: str = Field(description="column of the list")
    least: float | None = Field(default=None, description="smallest number that is wanted")
    most: float | None = Field(default=None, description="largest number that is wanted")
    among: tuple[str, ...] | None = Field(default=None, min_length=1, description="words that are wanted")

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if self.least is None and self.most is None and self.among is None:
            raise ValueError(f"the filter of {self.column} asks for nothing; write least, most or among")
        return self

    def admits(self, value: Any) -> bool:
        """Whether a row with this value is wanted."""
        if self.among is not None and str(value) not in self.among:
            return False
        if self.least is None and self.most is None:
            return True
        try:
            number = float(value)
        except (TypeError, ValueError):
            return False
        low, high = self.least, self.most
        return (low is None or number >= low) and (high is None or number <= high)


class Filtered(Strict):
    """Settings of a source whose rows can be filtered."""

    filters: tuple[Filter, ...] = Field(
        default=(), description="rows that are wanted, by columns of the list: {column, least, most, among}; all hold"
    )

    @property
    def news(self) -> tuple[str, ...]:
        """Settings that are left out of recipes while they ask for nothing."""
        return ("filters",)

    @model_serializer(mode="wrap")
    def _as_before_without_news(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Recipes (and so digests) that ask for nothing new are what they were before there was anything new."""
        default = {name: field.default for name, field in type(self).model_fields.items() if name in self.news}
        return {k: v for k, v in write(self).items() if k not in default or getattr(self, k) != default[k]}


def wanted(row: Mapping[str, Any], filters: Sequence[Filter], where: str) -> bool:
    """Whether a row passes all filters."""
    for entry in filters:
        if entry.column not in row:
            raise ArtifactError(f"{where} has no column '{entry.column}' to filter by; {nearest(entry.column, row)}")
        if not entry.admits(row[entry.column]):
            return False
    return True
