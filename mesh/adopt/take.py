"""Takes over what was found: marks it as this stack's, and changes nothing else of any object.

Helm takes an object into a release when it carries that release's name, and the provider takes one over that it would
create. The order lets a killed run be repeated: `pulumi up` is refused until the last step is done, and each step finds
what the earlier ones did.
https://helm.sh/docs/topics/advanced/#taking-ownership-of-existing-resources
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby

import names
from mesh.adopt.find import Plan
from mesh.cluster.kubectl import Kubectl
from mesh.cluster.objects import Object, listed
from mesh.cluster.owners import HELM_NAME, HELM_NAMESPACE

_MANAGER = "istio-governance"


def take(plan: Plan, owner: str, kubectl: Kubectl) -> None:
    """Raises `KubectlError`."""
    inside = sorted((one for one in plan.candidates if one.release), key=lambda one: one.release)
    for _, some in groupby(inside, lambda one: one.release):
        bodies = [one.body for one in some]
        annotations = bodies[0]["metadata"]["annotations"]
        _mark(
            kubectl,
            bodies,
            [f"{key}={annotations[key]}" for key in (HELM_NAME, HELM_NAMESPACE)],
            [f"{names.MANAGED_BY}=Helm"],
        )
    # What is the stack's `destroy` takes away, or lets go with the namespace.
    if plan.leftovers:
        _mark(kubectl, plan.leftovers, [f"{names.OWNER}={owner}"])
    for record in plan.records:
        kubectl.run("delete", "secret", record.secret, f"--namespace={record.namespace}", "--ignore-not-found")
    own = [one.body for one in plan.candidates if not one.release]
    for _, of_version in groupby(sorted(own, key=_version), _version):
        _own(kubectl, [*of_version], owner)


def _version(body: Object) -> str:
    return str(body["apiVersion"])


def _mark(kubectl: Kubectl, items: Iterable[Object], annotations: list[str], labels: list[str] | None = None) -> None:
    for verb, marks in (("annotate", annotations), ("label", labels or [])):
        if marks:
            kubectl.run(
                *(verb, "--filename=-", "--overwrite", f"--field-manager={_MANAGER}", *marks), stdin=listed(items)
            )


def _own(kubectl: Kubectl, items: list[Object], owner: str) -> None:
    """Both marks that the stack's objects carry: the provider may note an object that it takes over as it was a moment
    before, and what then differs is shown as a change by the next preview.

    The fields get no owner but these marks': or Pulumi's apply would end in a conflict with whoever had set one that
    it changes. https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership
    """
    annotations, labels = {names.OWNER: owner}, {names.MANAGED_BY: "pulumi"}
    only_marks = {
        "manager": _MANAGER,
        "operation": "Update",
        "apiVersion": items[0]["apiVersion"],
        "fieldsType": "FieldsV1",
        "fieldsV1": {
            "f:metadata": {"f:annotations": {f"f:{names.OWNER}": {}}, "f:labels": {f"f:{names.MANAGED_BY}": {}}}
        },
    }
    patch = {"metadata": {"annotations": annotations, "labels": labels, "managedFields": [only_marks]}}
    kubectl.run(
        *("patch", "--filename=-", "--type=merge", f"--field-manager={_MANAGER}", f"--patch={json.dumps(patch)}"),
        stdin=listed(items),
    )
