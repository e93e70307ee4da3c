"""After a killed `pulumi up`: Helm releases that the state does not know, or that Helm believes are still under way.

Helm refuses to touch either. Their records are taken away, and only the records: the next `pulumi up` installs the
release over its own objects, which Helm takes over because they carry its name.
https://helm.sh/docs/topics/advanced/#storage-backends
"""

from __future__ import annotations

from collections.abc import Collection

from mesh.kubectl import Kubectl


def forget_unfinished_releases(kubectl: Kubectl, namespace: str, known: Collection[str]) -> list[str]:
    """Deletes the records in the way; `known` are the names of the releases in the stack's state."""
    forgotten = []
    for secret in kubectl.items("secrets", f"--namespace={namespace}", "--selector=owner=helm"):
        labels = secret["metadata"]["labels"]
        pending = labels["status"].startswith("pending-")
        if pending or labels["name"] not in known:
            kubectl.run("delete", "secret", secret["metadata"]["name"], f"--namespace={namespace}")
            forgotten.append(f"{labels['name']} revision {labels['version']} ({labels['status']})")
    return forgotten
