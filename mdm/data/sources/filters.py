"""Which rows of a list are wanted: by what it says of them (scores of CLIP, safety tags, sizes), and by their part."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from mdm.config import Strict, nearest
from mdm.files.atomic import ArtifactError

Part = Literal["all", "train", "validation"]


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
        if self.among is not None and str(value) not in self.among:
            return False
        low, high = self.least, self.most
        try:
            return (low is None or float(value) >= low) and (high is None or float(value) <= high)
        except (TypeError, ValueError):
            return False


class Filtered(Strict):
    later: ClassVar = ("filters",)

    filters: tuple[Filter, ...] = Field(
        default=(), description="rows that are wanted, by columns of the list: {column, least, most, among}; all hold"
    )


def wanted(row: Mapping[str, Any], filters: Sequence[Filter], where: str) -> bool:
    for entry in filters:
        if entry.column not in row:
            raise ArtifactError(f"{where} has no column '{entry.column}' to filter by; {nearest(entry.column, row)}")
        if not entry.admits(row[entry.column]):
            return False
    return True


def belongs(name: str, part: Part, validation_every: int) -> bool:
    """Return whether a name is in the part; one in so many is in validation, whatever else there is."""
    if part == "all":
        return True
    drawn = int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8], "big")
    return (drawn % validation_every == 0) == (part == "validation")
