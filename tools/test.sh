#!/usr/bin/env bash
# Runs every test that this machine can run: fast ones first, then the workflow end to end, then the browser.
# Chromium and SLURM come from Debian packages; they are installed if that is possible, else their tests skip
# and say so.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1

need() { # need PROGRAM PACKAGE...: install Debian packages for a program that some tests use
    local program=$1
    shift
    if command -v "$program" > /dev/null; then
        return
    fi
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        echo "test: installing $* for the tests that need $program"
        apt-get update -qq > /dev/null && DEBIAN_FRONTEND=noninteractive \
            apt-get install -y -qq --no-install-recommends "$@" > /dev/null || echo "test: could not install $*"
    else
        echo "test: $program is missing; its tests will be skipped. Install it: apt-get install $*"
    fi
}

need chromedriver chromium chromium-driver
tools/lint.sh
python -m pytest -q tests/unit tests/numerics
python -m pytest -q tests/workflow tests/browser tests/slurm tests/gpu "$@"
