#!/usr/bin/env bash
# pulumi 3.250.0, pulumi-kubernetes 4.25.0: the parts of a provider's package (`pulumi_kubernetes.core.v1`) are loaded
# when their first attribute is read, and that is not for two threads: the one that comes while another loads the part
# finds a module without its names, an AttributeError for a class that is there a moment later. `import` in the place of
# the attribute waits for the other thread, as Python's imports do. Programs with threads of their own, the Automation
# API's inline programs side by side, or an import in the background meet that by chance, more often on a slow machine.
#
# Seen: "module 'pulumi_kubernetes.core.v1' has no attribute 'Namespace'" by attribute; by `import` the class.
# Installs the packages in a temporary folder.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check pulumi==3.250.0 pulumi-kubernetes==4.25.0

cat >two_threads.py <<'PYTHON'
import importlib
import sys
import threading
import time

import pulumi_kubernetes

WAYS = {
    "attribute": lambda: pulumi_kubernetes.core.v1.Namespace,
    "import": lambda: importlib.import_module("pulumi_kubernetes.core.v1").Namespace,
}
way = WAYS[sys.argv[1]]
sys.setswitchinterval(0.0005)
first = threading.Thread(target=way)
first.start()
# The first thread is in the middle of it: it has begun with one of the modules of the part, and they are many.
while not any(name.startswith("pulumi_kubernetes.core.v1.") for name in sys.modules):
    time.sleep(0.0005)
try:
    print("second thread:", way().__name__)
except AttributeError as error:
    print("second thread:", error)
first.join()
print("afterwards:   ", way().__name__)
PYTHON
for way in attribute import; do
  echo "by $way"
  venv/bin/python two_threads.py $way | tee $way.txt
done
grep -q "second thread: module 'pulumi_kubernetes.core.v1' has no attribute 'Namespace'" attribute.txt &&
  grep -q 'second thread: Namespace' import.txt &&
  [ "$(cat attribute.txt import.txt | grep -c 'afterwards:    Namespace')" = 2 ] ||
  { echo "CHANGED" >&2; exit 1; }
