#!/bin/bash
# install.sh [--check] [NAME...]   The pinned real clients that tests/clients/run.sh drives.
# NAME: claude-code sdk-js sdk-python (default: all, about 500 MB). Installs into ${FOREBAY_CLIENTS}, by default
# ${XDG_CACHE_HOME:-$HOME/.cache}/forebay-clients, with npm and pip as the user has configured them. A part that is there at its
# pinned version is left alone, so a second run costs a second.
# --check installs nothing. Exit: 0 all named parts present, 1 something missing or failed, 2 usage.
# Needs node >= 20, npm and python3 with venv.
set -eu

ROOT=${FOREBAY_CLIENTS:-${XDG_CACHE_HOME:-${HOME:?}/.cache}/forebay-clients}
case $(uname -m) in
  x86_64) ARCH=x64 ;;
  aarch64 | arm64) ARCH=arm64 ;;
  *) echo "install.sh: no pinned client for machine $(uname -m)" >&2; exit 2 ;;
esac
CLAUDE_PIN=2.1.330
SDK_JS_PIN=1.12.0
SDK_PYTHON_PIN=2.12.0

# A present package.json proves little: the command is a native binary in an optional dependency, which npm may leave out silently.
have_claude_code() {
  local m="$ROOT/claude-code/node_modules/@anthropic-ai"
  grep -qs "\"version\": *\"$CLAUDE_PIN\"" "$m/claude-code/package.json" && [ -x "$m/claude-code-linux-$ARCH/claude" ]
}

have_sdk_js() { grep -qs "\"version\": *\"$SDK_JS_PIN\"" "$ROOT/sdkjs/node_modules/@anthropic-ai/sdk/package.json"; }

have_sdk_python() {
  [ -x "$ROOT/venv/bin/python" ] && "$ROOT/venv/bin/python" - "$SDK_PYTHON_PIN" <<'PY'
import sys
from importlib.metadata import PackageNotFoundError, version
try:
    sys.exit(version("anthropic") != sys.argv[1])
except PackageNotFoundError:
    sys.exit(1)
PY
}

npm_install() { # DIRECTORY PACKAGE@VERSION
  mkdir -p "$ROOT/$1"
  [ -f "$ROOT/$1/package.json" ] || echo "{\"name\":\"forebay-clients-$1\",\"private\":true}" > "$ROOT/$1/package.json"
  (cd "$ROOT/$1" && npm install --save-exact --include=optional --ignore-scripts --no-audit --no-fund --loglevel=error "$2" </dev/null)
}

install_claude_code() { npm_install claude-code "@anthropic-ai/claude-code@$CLAUDE_PIN"; }
install_sdk_js() { npm_install sdkjs "@anthropic-ai/sdk@$SDK_JS_PIN"; }
install_sdk_python() {
  mkdir -p "$ROOT"
  [ -x "$ROOT/venv/bin/python" ] || python3 -m venv "$ROOT/venv"
  "$ROOT/venv/bin/python" -m pip install --quiet --disable-pip-version-check "anthropic==$SDK_PYTHON_PIN"
}

CHECK=0
if [ "${1:-}" = --check ]; then CHECK=1; shift; fi
missing=0
for name in ${*:-claude-code sdk-js sdk-python}; do
  case $name in claude-code | sdk-js | sdk-python) ;; *) echo "install.sh: unknown name $name" >&2; exit 2 ;; esac
  part=${name//-/_}
  if "have_$part"; then
    echo "ok       $name"
  elif [ "$CHECK" = 1 ]; then
    echo "missing  $name"; missing=1
  else
    echo "install  $name"
    "install_$part" && "have_$part" || { echo "install.sh: $name is still not there after installing it" >&2; missing=1; }
  fi
done
exit $missing
