"""No refactoring may change an artifact's identity: whoever has results on disk would train everything again.

`digests.json` lists, for every study that the repository ships, its own two digests and every artifact. Write it anew
(`python tests/unit/test_digests.py`) only in a commit that means to change what is computed.
"""

import json
from pathlib import Path

import pytest

from mdm import study

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).parent / "golden" / "digests.json"
STUDIES = sorted(path.stem for path in (ROOT / "config" / "studies").glob("*.yaml"))


def identities(name: str) -> dict[str, object]:
    """What names everything that a study makes, and what decides whether a table is made anew."""
    loaded = study.load(name, {})
    return {"digest": loaded.digest, "claims_digest": loaded.claims_digest, "artifacts": sorted(loaded.artifacts)}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_has_the_digests_that_were_recorded(name):
    assert identities(name) == json.loads(RECORDED.read_text())[name]


def test_every_recorded_study_is_still_there():
    assert sorted(json.loads(RECORDED.read_text())) == STUDIES


if __name__ == "__main__":
    RECORDED.write_text(json.dumps({name: identities(name) for name in STUDIES}, indent=1) + "\n")
