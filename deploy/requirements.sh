#!/bin/sh
# Export uv.lock, hashed, for machines without uv, into the folder named.
set -eu
cd "$(dirname "$0")/.."
mkdir -p "$1"
export="uv export --quiet --locked --no-emit-workspace --no-annotate --no-header --format requirements-txt"
$export --no-dev --package keystow-service >"$1/requirements.txt"
$export --all-packages --group dev >"$1/requirements-dev.txt"
