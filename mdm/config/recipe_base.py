"""What the recipes of all kinds of artifacts have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, PositiveInt

from mdm.config.base import Strict, StudyError, parse

# Raised in the same commit as any change of code that alters what a recipe computes; refactors leave it.
RECIPE_VERSION = 3
Ref = Annotated[str, Field(description="an artifact: KIND/NAME-DIGEST")]


class Recipe(Strict):
    """What every recipe has in common; the field `kind` tells which one it is."""

    kind: str
    version: PositiveInt = RECIPE_VERSION

    @classmethod
    def of(cls, content: Any, path: str | Path) -> Self:
        """Parse the content of a recipe.json; `path` is where it was read, for the message if it is no such recipe."""
        wanted, kind = cls.model_fields["kind"].default, content.get("kind") if isinstance(content, dict) else None
        if kind != wanted:
            raise StudyError(f"{path} is a recipe of {kind}; name one of results/{wanted}/")
        return parse(cls, content, str(path))

    def plain(self) -> dict[str, Any]:
        """The JSON content whose digest names the artifact."""
        return self.model_dump(mode="json")
