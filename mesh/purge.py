"""The two ends of `pulumi destroy`: `guard` runs before anything is deleted, `sweep` after everything is.

Run by the commands in components/purge.py, which say by the environment what to do.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import names
from mesh.kubectl import Kubectl, KubectlError

# istiod writes these into every namespace, and neither Helm nor `istioctl uninstall --purge` takes them away.
_CONFIG_MAPS = ("istio-ca-root-cert", "istio-ca-crl")
# Whatever else of a release lies in the mesh's namespace.
_REMAINS = "namespaces,mutatingwebhookconfigurations,validatingwebhookconfigurations,clusterroles,clusterrolebindings"


class ForeignObjectsError(Exception):
    """Objects of others would go; the message names them and says what to do."""


def guard(kubectl: Kubectl, owner: str, namespace: str) -> str:
    """Raises `ForeignObjectsError` while the CRDs hold objects that are not this stack's."""
    foreign = [_named(item) for item in _custom_resources(kubectl) if not _ours(item, owner, namespace)]
    if not foreign:
        return "no Istio objects of others in the cluster"
    listed = "\n".join(f"  {name}" for name in sorted(foreign))
    raise ForeignObjectsError(
        f"refused: mesh.purge removes Istio's CRDs, and with them {len(foreign)} objects that are not this stack's:\n"
        f"{listed}\n"
        "Nothing was deleted. Remove them first, or keep the CRDs: set mesh.purge to false, `pulumi up`, then go on."
    )


def sweep(kubectl: Kubectl, owner: str, namespace: str, purge: bool) -> str:
    """Removes what Helm and istiod leave behind; without `purge` the CRDs stay, and the answer says so.

    `namespace` is that of the mesh, the last to go. Beside what is always left, the CRDs and ConfigMaps, there may be
    the remains of a Helm release whose record was lost when an earlier command was killed.
    """
    remains = _remove_remains(kubectl, owner, namespace)
    crds = [crd["metadata"]["name"] for crd in istio_crds(kubectl)]
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


def _ours(item: Mapping[str, Any], owner: str, namespace: str) -> bool:
    """Made by this stack, or by one of its Helm releases."""
    annotations: Mapping[str, str] = item["metadata"].get("annotations", {})
    return annotations.get(names.OWNER) == owner or (
        annotations.get("meta.helm.sh/release-namespace") == namespace
        and names.is_release(annotations.get("meta.helm.sh/release-name", ""))
    )


def _named(item: Mapping[str, Any]) -> str:
    metadata = item["metadata"]
    return f"{item['kind']} {metadata.get('namespace', '')}/{metadata['name']}"


def main(step: str) -> None:
    kubectl = Kubectl(os.environ["MESH_CONTEXT"], os.environ["MESH_KUBECONFIG"])
    owner, namespace = os.environ["MESH_OWNER"], os.environ["MESH_NAMESPACE"]
    purge = os.environ["MESH_PURGE"] == "true"
    try:
        match step:
            case "guard":
                print(guard(kubectl, owner, namespace) if purge else "nothing of others would go")
            case "sweep":
                print(sweep(kubectl, owner, namespace, purge))
            case _:
                raise SystemExit(f"unknown step '{step}': guard or sweep")
    except ForeignObjectsError as refused:
        raise SystemExit(str(refused)) from None
    except KubectlError as error:
        raise SystemExit(f"the cluster could not be cleaned: {error}") from None


if __name__ == "__main__":
    main(sys.argv[1])
