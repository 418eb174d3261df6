#!/bin/sh
# Makes the environment: sh setup.sh PYTHON VENV. Can be repeated. `sh setup.sh --lock VENV` writes requirements.lock.
set -eu

if [ "$1" = "--lock" ]; then
    "$2/bin/python" -m pip freeze --exclude-editable --exclude pip --exclude setuptools | grep -v ' @ ' > requirements.lock
    echo "requirements.lock: $(grep -c == requirements.lock) packages pinned"
    exit 0
fi

python=$1
venv=$2

command -v "$python" > /dev/null 2>&1 || {
    echo "setup: no '$python' on the PATH. Install Python 3.11 or later (Debian: apt-get install python3), or name one: make PYTHON=…" >&2
    exit 1
}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "setup: $python is $("$python" -V 2>&1); Fettle needs Python 3.11 or later. Name one: make PYTHON=…" >&2
    exit 1
}

if [ ! -x "$venv/bin/python" ] || ! "$venv/bin/python" -m pip --version > /dev/null 2>&1; then
    rm -rf "$venv"
    if ! "$python" -c 'import ensurepip, venv' > /dev/null 2>&1; then
        # Debian keeps venv apart from Python
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        if [ "$(id -u)" = 0 ] && command -v apt-get > /dev/null; then
            echo "setup: installing $package, which Debian keeps apart from Python"
            { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package"; } > /dev/null
        else
            echo "setup: Python's venv is missing. Ask an administrator for: apt-get install $package" >&2
            exit 1
        fi
    fi
    echo "setup: making $venv with $("$python" -V)"
    "$python" -m venv "$venv"
fi

log=$venv/setup.log
echo "setup: installing packages (a minute or two the first time; log in $log)"
if ! {
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --upgrade 'pip>=25.1' &&
    "$venv/bin/python" -m pip install --disable-pip-version-check --quiet --constraint requirements.lock --editable . --group dev
} > "$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "setup: installing failed; the whole log is $log. Is the package index reachable?" >&2
    exit 1
fi
echo "setup: ready"
