#!/bin/sh
# Lint the contract with buf, without a network: buf reads an image that protoc has made.
set -eu
cd "$(dirname "$0")"
bin=../.venv/bin
googleapis=$($bin/python -c 'import google.rpc, pathlib; print(pathlib.Path(google.rpc.__path__[0]).parents[1])')
image=$(mktemp --suffix=.binpb)
trap 'rm -f "$image"' EXIT
$bin/python -m grpc_tools.protoc -I . -I "$googleapis" --include_imports --include_source_info \
    --descriptor_set_out="$image" keystow/v1/*.proto keystow/storage/v1/*.proto
$bin/buf lint "$image" --path keystow
