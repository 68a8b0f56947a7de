#!/usr/bin/env bash
# Resolve requirements/*.in into the hash-pinned lock files. Run by a maintainer after editing an .in file.
#
# torch gets lock files of its own, because the CPU wheel lives on PyTorch's index and not on PyPI. Packages that
# vllm asks for but whose wheels do not load beside this torch are left out of the lock (set-up uses --no-deps).
set -euo pipefail
cd "$(dirname "$0")/.."
cpu_torch_source=${CPU_TORCH_SOURCE:---extra-index-url https://download.pytorch.org/whl/cpu --index-strategy unsafe-best-match}

lock() { # lock OUT EXCLUDE... -- UV_ARGS...
    local out=$1; shift
    local exclude=()
    while [ "$1" != -- ]; do exclude+=(--no-emit-package "$1"); shift; done
    shift
    local args=(pip compile --quiet --python-version 3.11 --generate-hashes --no-header --no-emit-index-url
        --no-emit-find-links --no-annotate "${exclude[@]}" "$@" -o "$out.new")
    [ -f "$out" ] && cp "$out" "$out.new" # pins stay as they are unless the .in files ask for others
    .venv/bin/uv "${args[@]}"
    mv "$out.new" "$out"
}

# shellcheck disable=SC2086
lock requirements/cpu.txt torch torchvision torchaudio torchcodec triton -- $cpu_torch_source requirements/cpu.in requirements/dev.in
lock requirements/gpu.txt torchaudio torchcodec -- requirements/gpu.in requirements/dev.in
