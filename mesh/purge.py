"""The two ends of `pulumi destroy`: `guard` runs before anything is deleted, `sweep` after everything is.

Run by the commands in components/purge.py, which say by the environment what to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import names
from mesh.cluster import owners
from mesh.cluster.kubectl import Kubectl, KubectlError, here
from mesh.cluster.objects import Object, identity, live
from mesh.program.stack import PulumiError, Stack

# istiod writes these into every namespace, and neither Helm nor `istioctl uninstall --purge` takes them away.
_CONFIG_MAPS = ("istio-ca-root-cert", "istio-ca-crl")
# Whatever else of a release lies in the mesh's namespace.
_REMAINS = "namespaces,mutatingwebhookconfigurations,validatingwebhookconfigurations,clusterroles,clusterrolebindings"
_ISTIO = "deployments.apps,mutatingwebhookconfigurations,validatingwebhookconfigurations"


class ForeignObjectsError(Exception):
    """Objects of others would go; the message names them and says what to do."""


def guard(kubectl: Kubectl, owner: str, namespace: str) -> str:
    """Raises `ForeignObjectsError` while the CRDs hold objects that are not this stack's.

    `namespace` is that of the mesh. With another Istio in the cluster the CRDs stay, and so does what they hold.
    """
    if another_istio(kubectl, namespace):
        return "the CRDs stay, for another Istio in the cluster"
    foreign = [item for item in _custom_resources(kubectl) if not _ours(item, owner, namespace)]
    if not foreign:
        return "no Istio objects of others in the cluster"
    raise ForeignObjectsError(
        f"refused: mesh.purge removes Istio's CRDs, and with them {len(foreign)} objects that are not this stack's:\n"
        f"{_listed(foreign)}\n"
        "Nothing was deleted. Remove them first, or keep the CRDs: set mesh.purge to false, `pulumi up`, then go on."
    )


def guard_others(kubectl: Kubectl, stack: Stack, owner: str, guarded: str = "") -> str:
    """Raises `ForeignObjectsError` while something of others would be deleted: what they have in a namespace that the
    stack made, only `guarded` where it is given, and what has the name of an object that the stack made once."""
    made = [one["metadata"]["name"] for one in kubectl.items("namespaces") if owners.goes_with(one, owner)]
    made = [name for name in made if guarded in ("", name)]
    state = stack.resources()
    inside = owners.strangers(kubectl, owner, _mesh_namespace(state), made)
    rest = () if guarded else _instead(kubectl, owner, state)
    instead = [one for one in rest if one["metadata"].get("namespace") not in made]
    if not inside and not instead:
        return "nothing of others would go"
    text = "refused: what is not this stack's would be deleted with it. "
    text += "The namespace stays.\n" if guarded else "Nothing was deleted.\n"
    if inside:
        text += (
            f"In the namespace {' or '.join(made)}, which goes:\n{_listed(inside)}\n"
            "Move them or delete them first, or hand them to the stack, which then deletes them:\n"
            f"  kubectl annotate -n <namespace> <kind> <name> {names.OWNER}={owner}\n"
            "To leave the namespace of the workloads as it is: set namespace.keep to true, and `pulumi up` first.\n"
        )
    if instead:
        text += (
            f"In the place of objects of this stack that are gone:\n{_listed(instead)}\n"
            "Let the stack forget its own: pulumi state delete <their URNs>.\n"
        )
    raise ForeignObjectsError(text.strip())


def _mesh_namespace(state: Iterable[Mapping[str, Any]]) -> str:
    """Where the releases of the stack's own mesh are, '' without one."""
    releases = (entry["inputs"] for entry in state if entry["type"].endswith(":Release"))
    return next((str(inputs["namespace"]) for inputs in releases), "")


def _instead(kubectl: Kubectl, owner: str, state: Iterable[Mapping[str, Any]]) -> Iterator[Object]:
    """Objects of others that have the names of the stack's own: the provider deletes by name."""
    own = {identity(entry["inputs"]): entry for entry in state if _is_object(entry)}
    for found, item in live(kubectl, [entry["inputs"] for entry in own.values()]).items():
        if not owners.is_made_by(item, owner, own[found]["outputs"].get("__fieldManager", "")):
            yield item


def _is_object(entry: Mapping[str, Any]) -> bool:
    kind = str(entry["type"])
    return kind.startswith("kubernetes:") and not kind.endswith((":Release", "Patch"))


def sweep(kubectl: Kubectl, owner: str, namespace: str, purge: bool) -> str:
    """Removes what Helm and istiod leave behind; without `purge` the CRDs stay, and the answer says so.

    `namespace` is that of the mesh, the last to go. Beside what is always left, the CRDs and ConfigMaps, there may be
    the remains of a Helm release whose record was lost when an earlier command was killed. Where another Istio is in
    the cluster it needs the CRDs and ConfigMaps, whoever made them: they stay.
    """
    remains = _remove_remains(kubectl, owner, namespace)
    crds = [crd["metadata"]["name"] for crd in istio_crds(kubectl)]
    others = another_istio(kubectl, namespace)
    if others:
        return f"kept {len(crds)} CRDs and the ConfigMaps of Istio, for another one: {', '.join(others)}{remains}"
    if not purge:
        kept = (
            f"kept {len(crds)} CRDs of Istio (mesh.purge is false); to remove them: kubectl delete crd {' '.join(crds)}"
        )
        return f"{kept if crds else 'there was nothing to keep'}{remains}"
    if crds:
        kubectl.run("delete", "crd", "--ignore-not-found", "--timeout=60s", *crds, timeout=90)
    maps = [
        (item["metadata"]["namespace"], item["metadata"]["name"])
        for item in kubectl.items("configmaps", "--all-namespaces")
        if item["metadata"]["name"] in _CONFIG_MAPS
    ]
    for of_namespace, name in maps:
        kubectl.run("delete", "configmap", name, f"--namespace={of_namespace}", "--ignore-not-found")
    return f"removed {len(crds)} CRDs and {len(maps)} ConfigMaps of Istio{remains}"


def another_istio(kubectl: Kubectl, namespace: str) -> list[str]:
    """Control planes and webhooks, and releases of the CRDs' chart, that are not of the mesh in `namespace`."""
    crds = [crd for crd in istio_crds(kubectl) if owners.release_of(crd)[1]]
    found = [item for item in kubectl.items(_ISTIO, "--all-namespaces") if owners.is_istio(item)]
    foreign = [item for item in (*found, *crds) if not owners.is_in_mesh(item, namespace)]
    return sorted(
        {_named(item) for item in foreign if item["kind"] != "CustomResourceDefinition"}
        | {f"the Helm release {'/'.join(owners.release_of(item))}" for item in foreign if item in crds}
    )


def _remove_remains(kubectl: Kubectl, owner: str, namespace: str) -> str:
    """Takes away the mesh's own objects that are still there, and names them."""
    found = [
        item
        for item in kubectl.items(_REMAINS)
        if _ours(item, owner, namespace) and (item["kind"] != "Namespace" or item["metadata"]["name"] == namespace)
    ]
    for item in found:
        kubectl.run(
            *("delete", f"{item['kind'].lower()}s", item["metadata"]["name"], "--ignore-not-found", "--timeout=60s"),
            timeout=90,
        )
    listed = ", ".join(f"{item['kind']} {item['metadata']['name']}" for item in found)
    return f"; removed what a killed command had left: {listed}" if found else ""


def istio_crds(kubectl: Kubectl) -> Iterator[Mapping[str, Any]]:
    """Whoever made them."""
    for crd in kubectl.items("customresourcedefinitions"):
        if crd["spec"]["group"].endswith(".istio.io"):
            yield crd


def _custom_resources(kubectl: Kubectl) -> Sequence[Mapping[str, Any]]:
    kinds = [crd["metadata"]["name"] for crd in istio_crds(kubectl)]
    return kubectl.items(",".join(kinds), "--all-namespaces") if kinds else []


def _ours(item: Object, owner: str, namespace: str) -> bool:
    """Made by this stack, or by one of its Helm releases."""
    return owners.is_of(item, owner) or owners.is_in_mesh(item, namespace)


def _named(item: Object) -> str:
    return str(identity(item))


def _listed(items: Iterable[Object]) -> str:
    named = {_named(item): owners.manager(item, "") for item in items}
    return "\n".join(f"  {name}" + (f" ({of.who})" if of else "") for name, of in sorted(named.items()))


def main(step: str) -> None:
    kubectl = Kubectl(os.environ["MESH_CONTEXT"], here(os.environ["MESH_KUBECONFIG"]))
    owner, namespace = os.environ["MESH_OWNER"], os.environ["MESH_NAMESPACE"]
    purge = os.environ["MESH_PURGE"] == "true"
    try:
        match step:
            case "guard":
                if purge:
                    print(guard(kubectl, owner, namespace))
                # Pulumi runs this in the folder of the program, which may be another than this project's.
                stack = Stack(owner.partition("/")[2], Path())
                print(guard_others(kubectl, stack, owner, os.environ.get("MESH_GUARDS", "")))
            case "sweep":
                print(sweep(kubectl, owner, namespace, purge))
            case _:
                raise SystemExit(f"unknown step '{step}': guard or sweep")
    except ForeignObjectsError as refused:
        raise SystemExit(str(refused)) from None
    except (KubectlError, PulumiError) as error:
        raise SystemExit(f"the cluster could not be cleaned: {error}") from None


if __name__ == "__main__":
    main(sys.argv[1])
