"""The class of a picture: one of its labels, read as a number."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mdm.config import nearest
from mdm.config.recipe import StageRecipe
from mdm.files.atomic import ArtifactError


@dataclass(frozen=True)
class ClassLabel:
    """Which label holds the class (a number, or a list of one), and how many classes the network knows."""

    name: str
    count: int

    @property
    def none(self) -> int:
        """Return the number of "no class" (the network's extra embedding)."""
        return self.count

    def of(self, labels: Mapping[str, Any], where: str) -> int:
        """Return the class 0..count-1 that a picture's labels name; `where` says which picture that is."""
        if self.name not in labels:
            raise ArtifactError(f"{where} has no label '{self.name}' for class_label; {nearest(self.name, labels)}")
        value = labels[self.name]
        number = value[0] if isinstance(value, list) and len(value) == 1 else value
        if isinstance(number, bool) or not isinstance(number, int):
            raise ArtifactError(
                f"{where}: label '{self.name}' is {value!r}, but a class is one whole number; "
                "name another label in class_label, or a data set whose pictures have exactly one"
            )
        if not 0 <= number < self.count:
            raise ArtifactError(
                f"{where}: class {number} is not one of the network's {self.count} (0 to {self.count - 1}); "
                "correct the label, or write the number of classes in model.classes"
            )
        return number


def class_label(recipe: StageRecipe) -> ClassLabel | None:
    classes = recipe.model.classes
    return ClassLabel(recipe.class_label, classes) if classes else None
