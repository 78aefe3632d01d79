#!/usr/bin/env bash
# Writes requirements.lock from pyproject.toml. Needs uv; run it after changing a dependency.
# torch is locked without its local part (+cpu, +cu130), so one lock serves CPU and CUDA machines.
set -euo pipefail
cd "$(dirname "$0")/.."
{
    echo "# Python 3.11 and 3.12, Linux x86_64. Written by tools/lock.sh; torch has no local part, so that a CPU"
    echo "# wheel in a local folder and the index's CUDA build both satisfy it."
    UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}" uv pip compile pyproject.toml --extra dev --quiet \
        --python-version 3.11 --python-platform x86_64-manylinux_2_28 --no-emit-find-links --no-header --annotation-style line |
        sed -E 's/^torch==([0-9.]+)\+[a-z0-9]+/torch==\1/' | grep -vE '^(nvidia-|cuda-|triton=)'
} > requirements.lock.new
mv requirements.lock.new requirements.lock
