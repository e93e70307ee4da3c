#!/usr/bin/env bash
# pulumi-kubernetes 4.25.0, mypy 2.4.1, pyright 1.1.411: an object's arguments may be classes (`ContainerArgs`) or plain
# dicts with the same names (`ContainerArgsDict`, a TypedDict). mypy, strict or not, takes any dict at all in the place of
# the second: the generated module hides its TypedDicts from mypy (`if not MYPY`) and gives it `Mapping[str, Any]`. The
# program registers what it was given, and the API server is the first to tell. pyright sees the dicts as they are.
#
# Seen: mypy finds the wrong name in the call of the class and none in the dict; pyright finds both.
# Installs the packages, and pyright's own node, in a temporary folder.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check \
  pulumi==3.250.0 pulumi-kubernetes==4.25.0 mypy==2.4.1 "pyright[nodejs]==1.1.411"

cat >as_class.py <<'PYTHON'
from pulumi_kubernetes.core.v1 import ContainerArgs

container = ContainerArgs(name="web", imagePullPolicy="Never")
PYTHON
cat >as_dict.py <<'PYTHON'
from pulumi_kubernetes.core.v1 import ContainerArgsDict

container: ContainerArgsDict = {"name": "web", "imagePullPolicy": "Never"}
PYTHON

found=''
for file in as_class.py as_dict.py; do
  for checker in 'mypy --strict' 'pyright --pythonpath venv/bin/python'; do
    # shellcheck disable=SC2086  # with its options
    if said=$(venv/bin/$checker $file 2>&1); then answer=taken; else answer=refused; fi
    [ $answer = taken ] || grep -q imagePullPolicy <<<"$said" || { echo "CHANGED: $said" >&2; exit 1; }
    printf '%s, %s: %s\n' "${checker%% *}" "$file" "$answer"
    [ $answer = taken ] || printf '%s\n' "$said" | grep error | sed 's/^/    /'
    found="$found $answer"
  done
done
[ "$found" = ' refused refused taken refused' ] || { echo "CHANGED: $found" >&2; exit 1; }
