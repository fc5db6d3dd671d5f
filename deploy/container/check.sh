#!/bin/sh
# Check the container without a Docker engine: lint the Dockerfile, carry out its steps over a fresh Debian of the same
# release and Python as its base image, run the result with a read-only root as its user, and with it the other processes
# of deploy/compose.yaml. Takes about three minutes.
#
# What it stands for and what not: docs/adr/0008-container.md. Needs root, for mounts; leaves nothing behind.
set -eu
cd "$(dirname "$0")/../.."

skip() {
    echo "container-check: SKIPPED, nothing was shown: $1"
    if [ "${CI:-}" = true ]; then fail "with CI=true a skip is a failure"; fi
    exit 0
}

fail() {
    echo "container-check: $1" >&2
    exit 1
}

# Of the package, if its command is missing.
provide() {
    if ! command -v "$1" >/dev/null; then
        apt-get update -qq && apt-get install -y -qq "$2" >/dev/null || fail "$1 is missing: apt-get install $2"
    fi
}

# A root that stands for python:VERSION-slim-SUITE: Debian's own Python under the names that the image has.
debian() {
    host=$(. /etc/os-release && echo "$VERSION_CODENAME")
    mirror=$(apt-get indextargets --format '$(SITE) $(RELEASE)' 'Created-By: Packages' |
        awk -v release="$host" '$2 == release { print $1; exit }')
    debootstrap --variant=minbase --include=python3,python3-venv,python3-pip "$suite" "$work/base" "$mirror" \
        >"$work/debootstrap.log" 2>&1 || fail "debootstrap: $(tail -n 3 "$work/debootstrap.log")"
    for name in python pip; do ln -s "/usr/bin/${name}3" "$work/base/usr/local/bin/$name"; done
    find "$work/base/usr" -name '*.pyc' -delete # as the image of Python does
    has=$(chroot "$work/base" python -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    [ "$has" = "$python" ] || fail "Debian $suite has Python $has, the base image $python"
    # How this machine reaches package registries.
    cp -L /etc/ssl/certs/ca-certificates.crt "$work/base/etc/ssl/certs/"
    if [ -e /etc/pip.conf ]; then cp -L /etc/pip.conf "$work/base/etc/"; fi
    touch "$work/base/etc/hosts" # which engines mount
}

# The second time around: this script alone, in namespaces that end with it and take every mount and process along.
if [ "${1:-}" = --inside ]; then
    work=$2
    echo "The Dockerfile's steps:"
    .venv/bin/python deploy/container/replay.py "$PWD" "$work/base" "$work/stages"
    echo "The layers that the final stage adds: $(du -sh "$work/stages/image/upper" | cut -f1)"
    echo "The container:"
    .venv/bin/python deploy/container/run.py "$work/stages/image.json" "$work/volume"
    echo "deploy/compose.yaml:"
    # shellcheck disable=SC2016 # the inner shell's
    PYTHONPATH=tests unshare --net sh -euc 'ip link set lo up && exec "$@"' sh .venv/bin/python \
        deploy/container/compose_check.py "$work/stages/image.json" "$work/base" build/versitygw "$work/compose"
    exit
fi

work=$(mktemp -d "${TMPDIR:-/var/tmp}/keystow-container-XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
trap 'exit 130' INT TERM

[ -x .venv/bin/hadolint ] || fail "there is no .venv/bin/hadolint: run deploy/environment.sh"
.venv/bin/hadolint Dockerfile
echo "hadolint: clean"
if [ ! -e /etc/debian_version ] || ! command -v apt-get >/dev/null; then skip "the steps need Debian"; fi
if [ "$(id -u)" -ne 0 ]; then skip "the steps need root"; fi
if ! unshare --mount --pid --net --fork true 2>/dev/null; then skip "this machine lets nobody make namespaces"; fi

read -r python suite <<END
$(sed -n 's/^ARG PYTHON_IMAGE=python:\([0-9]*\.[0-9]*\)[0-9.]*-slim-\([a-z]*\).*/\1 \2/p' Dockerfile)
END
provide debootstrap debootstrap
provide ip iproute2
provide busybox busybox-static
tests/servers/versitygw.sh >/dev/null
debian
echo "A fresh Debian $suite with Python $python"
unshare --mount --pid --fork --kill-child --mount-proc "$0" --inside "$work"
echo "container-check: all good"
