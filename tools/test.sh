#!/usr/bin/env bash
# Runs every test that this machine can run, and shows the slowest twenty.
# Chromium and SLURM come from Debian packages; they are installed if that is possible, else their tests skip
# and say so.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1

browser() {
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
        apt-get install -y -qq --no-install-recommends chromium chromium-driver
}

need() { # need PROGRAM COMMAND...: a program that some tests use, and the command that installs it
    local program=$1
    shift
    if command -v "$program" > /dev/null; then
        return
    fi
    if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
        echo "test: installing Debian packages for the tests that need $program"
        "$@" > /dev/null 2>&1 || echo "test: could not install $program; its tests will be skipped"
    else
        echo "test: $program is missing and only root can install it; its tests will be skipped"
    fi
}

need chromedriver browser
need slurmctld tools/mini_slurm.sh install
tools/lint.sh
# One run of everything, in two processes that share the cores, so that a failure keeps no later test from running. Whole
# files are handed out, the long ones first. Threads would fight over the cores, so each process computes with one.
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
python -m pytest -q -n "${TEST_PROCESSES:-2}" --dist loadfile --durations=20 \
    tests/workflow tests/slurm tests/browser tests/gpu tests/numerics tests/unit "$@"
