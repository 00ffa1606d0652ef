# Sourced by the other scripts (bash): creates .venv and installs the project into it when something changed.

setup_environment() {
    local extra=$1 repo venv python stamp wanted
    repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    venv="$repo/.venv"
    stamp="$venv/.installed${extra:+-$extra}"
    wanted=$(cat "$repo/pyproject.toml" "$repo/constraints.txt" | cksum)
    if [[ -x "$venv/bin/python" && -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]]; then
        return
    fi
    # One set-up at a time: a second caller waits and then finds the work done.
    exec 9>"$repo/.setup.lock"
    if command -v flock >/dev/null; then flock 9; fi
    if [[ -x "$venv/bin/python" && -f "$stamp" && "$(cat "$stamp")" == "$wanted" ]]; then
        exec 9>&-
        return
    fi
    if ! "$venv/bin/python" -c '' 2>/dev/null; then
        python=$(find_python)
    fi
    echo "Setting up, once: what the project needs is installed into $venv (two minutes, or as long as PyTorch" \
        "takes to download) ..." >&2
    if [[ -n ${python:-} ]]; then "$python" -m venv --clear "$venv"; fi
    # Twice quiet: errors are shown, pip's warnings about its own settings are not.
    "$venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check \
        --constraint "$repo/constraints.txt" --editable "$repo${extra:+[$extra]}" >&2
    printf '%s\n' "$wanted" >"$stamp"
    exec 9>&-
}

# Run one of the project's modules, whatever the working directory (or PYTHONPATH) holds by the name of its package.
run_module() {
    local repo
    repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
    export DNC_CALLED_AS="${DNC_CALLED_AS:-$(printf %q "$(dirname "$0")/run")}"  # what hints tell to type
    exec "$repo/.venv/bin/python" -P "$repo/scripts/module.py" "$@"
}

find_python() {
    local candidate found=""
    for candidate in ${PYTHON:+"$PYTHON"} python3 python3.13 python3.12 python3.11 python; do
        command -v "$candidate" >/dev/null || continue
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            if "$candidate" -c 'import venv, ensurepip' 2>/dev/null; then
                echo "$candidate"
                return
            fi
            found="$found, $candidate without venv (Debian: install python3-venv)"
        else
            found="$found, $candidate is $("$candidate" --version 2>&1)"
        fi
    done
    found=${found#, }
    echo "error: Python 3.11 or newer is needed; found: ${found:-none}. Set PYTHON=/path/to/python." >&2
    exit 1
}
