#!/usr/bin/env bash
# All that a GPU which is lent for minutes should be asked, in at most 8 minutes on one H100 or H200:
#
#   benchmarks/gpu_day.sh OUT                         ours alone
#   benchmarks/gpu_day.sh OUT "python /x/driver.py"   beside another program (its protocol: benchmarks/model.py)
#   benchmarks/gpu_day.sh --needs                     what must be on that machine beforehand
#   TINY=1 benchmarks/gpu_day.sh OUT                  the same steps in tiny sizes on the processor: a rehearsal
#
# Every step has its own time limit and leaves its log and its numbers in OUT as soon as it ends, so that a machine which
# is taken away early has still told something. At the end OUT/gpu_day.json holds all of it, and OUT/gpu_day.md is the
# section of benchmarks/README.md that it makes.
set -u
cd "$(dirname "$0")/.."

if [ "${1:-}" = --needs ]; then
  cat <<'NEEDS'
- this repository, and the environment of requirements.lock (make setup; pip needs a network, or a copy of .venv made on
  the same system)
- for the pictures: results/ with the data sets, captions and instruments of the study, made by
      mdm run data --study workstation
  on any machine (no GPU needed); without them the last step begins by downloading its packages
- for the other program: its driver and its own environment
NEEDS
  exit 0
fi

OUT=${1:?write a folder for the results, or --needs}
AGAINST=${2:-}
mkdir -p "$OUT"
OUT=$(cd "$OUT" && pwd)
if [ -n "${TINY:-}" ]; then
  DEVICE=cpu PRECISION=float32 STUDY=quick PICTURES=40
  NETWORKS=(nested-small)
else
  DEVICE=cuda PRECISION=bf16 STUDY=workstation PICTURES=180
  NETWORKS=(released-64 released-256 released-1024)
fi

# step NAME SECONDS COMMAND...: run it, at most so long; its end, its time and its log are kept whatever happens.
step() {
  local name=$1 limit=$2 began code
  shift 2
  began=$SECONDS
  timeout --kill-after=5 "$limit" "$@" >"$OUT/$name.log" 2>&1 </dev/null
  code=$?
  printf '{"step": "%s", "status": %d, "seconds": %d, "limit": %d}\n' \
    "$name" "$code" $((SECONDS - began)) "$limit" >>"$OUT/steps.jsonl"
  echo "$name: $([ $code = 0 ] && echo done || echo "ended with status $code"), log in $OUT/$name.log"
}

: >"$OUT/steps.jsonl"
rm -f "$OUT/model.jsonl"
step machine 20 python -c 'import torch, mdm; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu")'
step tests 90 python -m pytest -q tests/gpu
for network in "${NETWORKS[@]}"; do
  for compile in none blocks; do
    step "model-$network-$compile" 60 python benchmarks/model.py "$network" --device $DEVICE --precision $PRECISION \
      --rounds 3 --compile $compile --json "$OUT/model.jsonl" ${AGAINST:+--against "$AGAINST"}
  done
done
# Minutes of a real study with its grids of pictures; what it has made by then stays in results/ and is gone on with.
step study $PICTURES mdm run --study $STUDY
mkdir -p "$OUT/pictures"
find results/train -path '*previews*' -name '*.png' -exec cp --backup=numbered {} "$OUT/pictures/" \; 2>/dev/null
python benchmarks/gpu_day.py "$OUT"
