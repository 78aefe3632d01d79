"""The command line: `door` lets in; `study` and `artifacts` hold one function for each verb, its options above it.

What is heavy is imported by the verb that needs it, so that the many short jobs of a study start at once.
"""

from mdm.cli.artifacts import files, jobs
from mdm.cli.door import door, keep_freed_memory, main
from mdm.cli.study import results, studies

__all__ = ["door", "keep_freed_memory", "main"]

door.open(studies, results, jobs, files)
