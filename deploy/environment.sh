#!/bin/sh
# Make .venv as the lock file says: with uv where there is one, else with venv, pip and the exported hashes.
# On Debian and Ubuntu it installs python3-venv itself where that is missing and it may.
set -eu
cd "$(dirname "$0")/.."

supported() { "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; }

step() { echo "  $*"; }

find_python() {
    for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
        if supported "$candidate"; then
            command -v "$candidate"
            return
        fi
    done
    echo "keystow needs Python 3.11 to 3.14; none was found. Install one, or name it: make PYTHON=/path/to/python" >&2
    return 1
}

install_venv_package() {
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    if ! command -v apt-get >/dev/null; then
        echo "This Python cannot make virtual environments: install its venv and ensurepip modules, or uv." >&2
        return 1
    fi
    as_root=
    if [ "$(id -u)" -ne 0 ]; then as_root="sudo -n"; fi
    if ! { $as_root apt-get update -qq && $as_root apt-get install -y -qq "python$version-venv"; }; then
        echo "This Python cannot make virtual environments. Run: sudo apt-get install python$version-venv" >&2
        return 1
    fi
}

python=$(find_python)

if command -v uv >/dev/null; then
    step "installing the locked packages, with uv and $python"
    UV_PYTHON_DOWNLOADS=never uv sync --quiet --locked --compile-bytecode --python "$python"
else
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        step "installing the system's package of python's venv"
        install_venv_package
    fi
    step "making a virtual environment of $python"
    "$python" -m venv --clear .venv
    step "downloading and installing $(grep -c == requirements-dev.txt) packages; nothing is shown meanwhile"
    .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
    step "installing keystow itself"
    .venv/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
        -e protos -e service -e clients/python
fi
touch .venv/.ready
