#!/bin/sh
# Generate the Python messages, stubs and their types from the .proto files, into the folder named (default: python).
set -eu
cd "$(dirname "$0")"
out=${1:-python}
bin=../.venv/bin
googleapis=$($bin/python -c 'import google.rpc, pathlib; print(pathlib.Path(google.rpc.__path__[0]).parents[1])')
mkdir -p "$out"
protoc() {
    $bin/python -m grpc_tools.protoc -I . -I "$googleapis" \
        --plugin=protoc-gen-mypy=$bin/protoc-gen-mypy --plugin=protoc-gen-mypy_grpc=$bin/protoc-gen-mypy_grpc "$@"
}
protoc --python_out="$out" --mypy_out=quiet:"$out" keystow/v1/*.proto keystow/storage/v1/*.proto
protoc --grpc_python_out="$out" --mypy_grpc_out=quiet:"$out" keystow/v1/*.proto
touch "$out/keystow/v1/py.typed" "$out/keystow/storage/v1/py.typed"
