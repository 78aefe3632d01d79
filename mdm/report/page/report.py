"""The report of whatever is finished; numbers are collected afresh, so a partial study makes a partial report."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from mdm.report import collect
from mdm.report.page.html import Sources, ablation_page, write_report
from mdm.study.study_file import LITERATURE

if TYPE_CHECKING:
    from mdm.study.study import Study


def write(study: Study, results: Path, out: Path, ablation: str | None = None) -> list[str]:
    """Write the page of a study, or of one ablation; return what is missing."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = Sources(results, Path(scratch, "metrics.csv"), Path(scratch, "missing.json"), LITERATURE)
        _, missing = collect.write(study, results, sources.metrics_csv, sources.missing_json)
        if ablation:
            ablation_page(study, ablation, sources, out)
        else:
            write_report(study, sources, out)
    return [entry["artifact"] for entry in missing]
