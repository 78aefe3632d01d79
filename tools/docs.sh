#!/usr/bin/env bash
# Builds the documents as a site in build/docs; a dead link is an error. Needs the extra `docs` of pyproject.toml, which
# it installs into .venv. The pages are first copied, each in its own folder, to build/pages: links then mean the same
# in the site as in the repository.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! .venv/bin/python -c "import material, mkdocs" 2> /dev/null; then
    echo "docs: installing mkdocs-material into .venv"
    wanted=(--constraint requirements.lock --editable ".[docs]")
    if command -v uv > /dev/null; then
        uv pip install --quiet --python .venv/bin/python "${wanted[@]}"
    else
        .venv/bin/python -m pip install --quiet --disable-pip-version-check "${wanted[@]}"
    fi
fi
rm -rf build/pages build/docs
mkdir -p build/pages
cp --parents --target-directory build/pages -- *.md LICENSE CITATION.cff docs/* {config,slurm,benchmarks}/README.md
# The variable silences an advertisement. Not --quiet: it hides warnings from --strict as well.
export NO_MKDOCS_2_WARNING=1
.venv/bin/python -m mkdocs build --strict > build/docs.log 2>&1 || { cat build/docs.log; exit 1; }
echo "docs: open build/docs/index.html"
