"""No refactoring may change an artifact's identity: whoever has results on disk would train everything again.

`digests.json` lists, for every study that the repository ships, its own two digests and every artifact (of a study of
thousands: their number and the digest of the list). Write it anew
(`python tests/unit/test_digests.py`) only in a commit that means to change what is computed.
"""

import json
from pathlib import Path

import pytest

from mdm import study
from mdm.files.artifact import digest

ROOT = Path(__file__).resolve().parents[2]
RECORDED = Path(__file__).parent / "golden" / "digests.json"
LISTED = 2000  # artifacts of one study
STUDIES = sorted(path.stem for path in (ROOT / "config" / "studies").glob("*.yaml"))


def identities(name: str) -> dict[str, object]:
    """What names everything that a study makes, and what decides whether a table is made anew."""
    loaded = study.load(name, {})
    artifacts = sorted(loaded.artifacts)
    named = artifacts if len(artifacts) <= LISTED else {"count": len(artifacts), "digest": digest(artifacts)}
    return {"digest": loaded.digest, "claims_digest": loaded.claims_digest, "artifacts": named}


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_has_the_digests_that_were_recorded(name):
    assert identities(name) == json.loads(RECORDED.read_text())[name]


def test_every_recorded_study_is_still_there():
    assert sorted(json.loads(RECORDED.read_text())) == STUDIES


if __name__ == "__main__":
    RECORDED.write_text(json.dumps({name: identities(name) for name in STUDIES}, indent=1) + "\n")
