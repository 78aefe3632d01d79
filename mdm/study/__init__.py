"""A study: one YAML file, the runs and artifacts that follow from it, what they cost, and running them."""

from mdm.study.study import Study, group_members, load
from mdm.study.study_file import LITERATURE, typed

__all__ = ["LITERATURE", "Study", "group_members", "load", "typed"]
