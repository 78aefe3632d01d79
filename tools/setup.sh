#!/usr/bin/env bash
# Makes .venv with the locked packages and this project: with uv if it is there (seconds), else pip (minutes).
#
# Which torch arrives:
#   a folder of wheels   PIP_FIND_LINKS or UV_FIND_LINKS; a CPU build there wins
#   uv, no such folder   uv looks at the machine: CPU build without a GPU, else the matching CUDA build
#   pip                  what the index serves: on Linux the CUDA build, which runs on CPUs too but is large;
#                        set PIP_EXTRA_INDEX_URL to PyTorch's CPU index for the small one
set -euo pipefail
cd "$(dirname "$0")/.."
started=$SECONDS

supported() {
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2> /dev/null
}

pick_python() {
    for candidate in "${PYTHON:-python3}" python3.12 python3.11; do
        if supported "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    echo "setup: Python 3.11 or 3.12 is needed, found $("${PYTHON:-python3}" --version 2>&1 || true)." >&2
    echo "       Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2
    return 1
}

install_with_uv() {
    export UV_PYTHON_DOWNLOADS=never UV_FIND_LINKS="${UV_FIND_LINKS:-${PIP_FIND_LINKS:-}}"
    local install=(uv pip install --quiet --python .venv/bin/python -r requirements.lock -e .)
    uv venv --quiet --allow-existing --python "$(command -v "$python")" .venv
    # A site with its own index or wheels has chosen its torch already.
    if [ -n "$UV_FIND_LINKS${UV_INDEX_URL:-}${UV_DEFAULT_INDEX:-}${UV_TORCH_BACKEND:-}" ]; then
        "${install[@]}"
    else
        "${install[@]}" --torch-backend=auto || "${install[@]}"
    fi
}

install_with_pip() {
    "$python" -m venv .venv
    .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.lock -e .
}

python=$(pick_python)
if command -v uv > /dev/null; then
    echo "setup: uv installs the locked packages into .venv ($("$python" --version))"
    install_with_uv
else
    echo "setup: pip installs the locked packages into .venv ($("$python" --version)); a minute or two, once"
    install_with_pip
fi
touch .venv/ready
echo "setup: ready after $((SECONDS - started)) s"
