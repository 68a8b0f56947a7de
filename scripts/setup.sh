#!/usr/bin/env bash
# Build .venv from the lock files. Does nothing (and needs no network) when they have not changed since.
#   scripts/setup.sh [cpu|gpu]
set -euo pipefail
cd "$(dirname "$0")/.."
engine=${1:-cpu}
python=${PYTHON:-python3.11}
lock=requirements/$engine.txt
[ -f "$lock" ] || { echo "setup: unknown engine '$engine', expected cpu or gpu" >&2; exit 2; }
command -v "$python" >/dev/null || { echo "setup: $python not found; install Python 3.11 or set PYTHON" >&2; exit 2; }

wanted=$(cat "$lock" requirements/torch-cpu.txt pyproject.toml scripts/setup.sh | sha256sum | cut -d' ' -f1)-$engine
stamp=.venv/lmrrg-stamp
[ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && exit 0

echo "setup: installing the $engine lock file into .venv (4.3 GB, about two minutes)"
# The other engine's packages have the same names and versions: pip would keep them.
case "$(cat "$stamp" 2>/dev/null)" in ''|*-"$engine") ;; *) rm -rf .venv ;; esac
[ -x .venv/bin/python ] || "$python" -m venv .venv
pip=(.venv/bin/python -m pip --disable-pip-version-check install --quiet --no-deps)
pinned=("${pip[@]}" --require-hashes)

# The build tools first: deepspeed is a source distribution that must see the locked setuptools and this torch.
build_tools=$(mktemp); trap 'rm -f "$build_tools"' EXIT
awk '/^[a-z]/ {keep = /^(setuptools|wheel|packaging)==/} keep' "$lock" >"$build_tools"
"${pinned[@]}" -r "$build_tools"

if [ "$engine" = cpu ]; then
    # Where pip's own index has no such file, take it from PyTorch's public index of CPU wheels.
    "${pinned[@]}" -r requirements/torch-cpu.txt 2>/dev/null ||
        "${pinned[@]}" --index-url https://download.pytorch.org/whl/cpu -r requirements/torch-cpu.txt
fi
DS_BUILD_OPS=0 "${pinned[@]}" --no-build-isolation -r "$lock"
"${pip[@]}" --no-build-isolation --editable .
check='import sys, torch, vllm, ray, deepspeed; assert (torch.version.cuda is not None) == (sys.argv[1] == "gpu"), torch'
.venv/bin/python -c "$check" "$engine" >/dev/null 2>.venv/import.log ||
    { echo "setup: the installed packages do not work together:" >&2; tail -5 .venv/import.log >&2; exit 1; }
echo "$wanted" >"$stamp"
