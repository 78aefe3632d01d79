"""Do the laptop study's verdicts hold with other seeds, and on another instruction set?

    mdm run --study laptop                                   # in a clone of its own each
    mdm run --study laptop --set 'seeds=[3,4,5]'
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 mdm run --study laptop
    python benchmarks/stability.py "seeds 0, 1, 2=CLONE/results/studies/laptop/claims.json" ...

Writes stability.json beside this file, and stability.md, the table that tools/readme.py puts into README.md. The third
run stands in for another computer: the same seeds, other roundings.
"""

import json
import sys
from pathlib import Path

OUT = Path(__file__).with_name("stability.json")


def read(path: Path) -> dict[str, dict]:
    """Verdict and margin of every claim of one run of the study."""
    found = {}
    for claim in json.loads(path.read_text())["claims"]:
        (first, *_) = claim["comparisons"] or [{}]
        margin = {key: first.get(key) for key in ("text", "margin", "low", "high")}
        found[claim["name"]] = {"verdict": claim["verdict"], "p_value": claim["p_value"], **margin}
    return found


def table(runs: dict[str, dict[str, dict]]) -> str:
    """One line for each claim, one column for each run, and how many verdicts are alike in all."""
    names = list(next(iter(runs.values())))
    lines = [f"| Claim | {' | '.join(runs)} |", f"|---|{'---|' * len(runs)}"]
    lines += [f"| {name} | {' | '.join(run[name]['verdict'] for run in runs.values())} |" for name in names]
    alike = sum(len({run[name]["verdict"] for run in runs.values()}) == 1 for name in names)
    every = "both" if len(runs) == 2 else f"all {len(runs)}"
    return "\n".join([*lines, "", f"{alike} of {len(names)} claims got the same verdict in {every}."])


def main() -> None:
    runs = {}
    for argument in sys.argv[1:]:
        label, _, path = argument.rpartition("=")
        if not label:
            raise SystemExit(f"{argument!r}: write LABEL=PATH of a claims.json")
        runs[label] = read(Path(path))
    if not runs:
        raise SystemExit(__doc__)
    OUT.write_text(json.dumps(runs, indent=1) + "\n")
    OUT.with_suffix(".md").write_text(table(runs) + "\n")
    print(table(runs))


if __name__ == "__main__":
    main()
