#!/usr/bin/env bash
# Refuses merges that nobody resolved, and conflict markers in any file that git tracks. Git itself says what a marker is.
#   tools/conflicts.sh [FOLDER]      a folder of a repository; default: this one
set -euo pipefail
cd "${1:-$(dirname "$0")/..}"
git rev-parse --is-inside-work-tree > /dev/null 2>&1 || { echo "conflicts: no git repository, nothing to check"; exit 0; }

unmerged=$(git ls-files --unmerged | cut -f2 | sort -u)
# Against the tree with nothing in it, so that every line counts as added. Its other complaints are about spaces.
marked=$(git diff --check "$(git hash-object -t tree /dev/null)" | grep "leftover conflict marker$" || true)
[ -z "$unmerged" ] || printf 'conflicts: %s is not merged: resolve it, then git add\n' $unmerged
[ -z "$marked" ] || echo "$marked"
[ -z "$unmerged$marked" ]
