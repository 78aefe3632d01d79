#!/usr/bin/env bash
# Unresolved merges, dead links, style of the Python and of the workflow; changes nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"
tools/conflicts.sh
python tools/links.py
ruff check -q .
ruff format --check -q . || { echo "lint: run 'make format'"; exit 1; }
snakefmt --check Snakefile workflow > /dev/null 2>&1 || { echo "lint: run 'make format'"; exit 1; }
snakemake --lint > /dev/null 2>&1 || { snakemake --lint; exit 1; }
echo "lint: merges, links, ruff, snakefmt and snakemake --lint are content"
