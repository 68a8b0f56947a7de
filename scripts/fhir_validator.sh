#!/usr/bin/env bash
# Install the npm package that validates FHIR documents in the tests into .cache/fhir; needs node and npm.
set -euo pipefail
cd "$(dirname "$0")/.."
version=4.12.0
folder=.cache/fhir
[ -f "$folder/node_modules/fhir/package.json" ] && grep -q "\"version\": \"$version\"" "$folder/node_modules/fhir/package.json" && exit 0
command -v npm >/dev/null || { echo "fhir_validator: npm not found; install Node.js" >&2; exit 2; }
mkdir -p "$folder"
npm install --prefix "$folder" --no-audit --no-fund --silent "fhir@$version"
