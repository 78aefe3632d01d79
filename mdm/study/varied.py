"""Runs that vary their data set, and networks that take the number of their classes from it."""

from mdm.config import RunConfig, StudyError
from mdm.study.recipes import Artifacts


def resolved(run: RunConfig, made: Artifacts, where: str) -> RunConfig:
    """Return the same run with its own data set named in `data`, and the number of its classes written out."""
    if run.data_settings and all(stage.data for stage in run.stages.values()):
        raise StudyError(
            f"{where}.data_settings: every stage names a data set of its own, so that of the run trains nothing; write "
            "these settings there, or leave stages.*.data out"
        )
    if (label := run.data_settings.get("label")) in ("random", "unique") and not run.model.classes:
        raise StudyError(
            f"{where}.data_settings.label: {label} has no effect on a network without classes; write model.classes: "
            "data, or leave it out"
        )
    data = made.vary(run.data, run.data_settings, f"{where}.data")
    classes = run.model.classes
    if classes == "data":
        classes = _counted(run, made, data, where)
    model = run.model.model_copy(update={"classes": classes})
    return run.model_copy(update={"data": data, "data_settings": {}, "model": model})


def _counted(run: RunConfig, made: Artifacts, data: str, where: str) -> int:
    """Return how many classes the labels of a training set have."""
    if run.class_label != RunConfig.model_fields["class_label"].default:
        raise StudyError(f"{where}.model.classes: data, with class_label '{run.class_label}'; write their number")
    if found := made.label_count(data, where, run.take):
        return found
    why = "has no label `class`" if found == 0 else "cannot say before it is made how many classes it has"
    raise StudyError(f"{where}.model.classes: data, but data.{data} {why}; write label: class, or their number")
