"""Every proxy of the mesh that may call, and what each of them has.

Envoy itself is asked, one proxy for all that are alike: pods of one template that have acknowledged all that istiod has
sent them. Whoever has not, or is not connected, is asked for itself; so is everybody where istiod cannot be asked. Of
proxies without a pod in the cluster, such as a VM's, istiod says what it sent them.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

import names
from mesh.cluster import api, dump, envoy
from mesh.cluster.api import Question
from mesh.cluster.dump import Dump
from mesh.cluster.envoy import Proxy
from mesh.cluster.istiod import Connection, Istiods, latest
from mesh.cluster.kubectl import Kubectl, KubectlError
from mesh.cluster.owners import annotations_of, labels_of
from mesh.routes.model import Caller, Config, Connections, VirtualHost

# What differs between pods of one template.
_OWN_LABELS = frozenset({"statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index"})
_ROUTES = "/config_dump?resource=dynamic_route_configs&mask=route_config.name,route_config.virtual_hosts"
_LISTENERS = "/config_dump?resource=dynamic_listeners&mask=active_state.listener"
_CLUSTERS = "/config_dump?resource=dynamic_active_clusters&mask=cluster.name,cluster.metadata"
_ENDPOINTS = "/clusters?format=json"


@dataclass(frozen=True)
class Known:
    """One caller: its Envoy, None without a pod, and its connection to istiod.

    `connection` is None for a proxy that no istiod knows, and where no istiod could be asked.
    """

    caller: Caller
    proxy: Proxy | None
    connection: Connection | None
    template: tuple[object, ...]

    @property
    def key(self) -> tuple[str, str]:
        return self.caller.name, self.caller.namespace

    @property
    def is_settled(self) -> bool:
        """It has acknowledged all that it was sent."""
        return self.connection is not None and not self.connection.stale

    @property
    def is_behind(self) -> bool:
        """It was sent something, and has said nothing to that yet."""
        return self.connection is not None and bool(self.connection.stale) and not self.connection.error


@dataclass(frozen=True)
class Callers:
    """All of them at one moment. `silence` is why istiod could not be asked, '' where it could."""

    kubectl: Kubectl
    known: Sequence[Known]
    istiods: Istiods | None
    silence: str = ""

    def groups(self, among: Iterable[Known] | None = None) -> list[list[Known]]:
        """Those of which one speaks for all; the first is the one to ask."""
        found: dict[object, list[Known]] = {}
        for one in self.known if among is None else among:
            key = (one.template, one.connection and one.connection.istiod) if one.is_settled else one.caller
            found.setdefault(key, []).append(one)
        # What the one with the oldest push has, the others have, too.
        return [sorted(group, key=_newest) for group in found.values()]

    def connections(self) -> Mapping[tuple[str, str], Connection]:
        """As they are now; {} where istiod cannot be asked. Raises `KubectlError`."""
        try:
            return latest(self.istiods.connections()) if self.istiods else {}
        except ValueError as error:
            raise KubectlError(f"istiod's answer cannot be read: {error}") from None

    def configs(
        self, among: Iterable[Known] | None = None, *, tcp: Collection[int] | None = (), endpoints: bool = False
    ) -> dict[Caller, Config | KubectlError]:
        """What each of them has; an error where that cannot be known.

        Connections are read for the ports `tcp` alone (None: for all), as listeners are most of what a proxy has, and
        the endpoints of clusters if asked for.
        """
        groups = self.groups(among)
        envoys = {group[0].caller: group[0].proxy for group in groups if group[0].proxy}
        # Envoy passes over a filter that it does not know, which older ones do not.
        named = quote(f".*_({'|'.join(map(str, sorted(tcp or ())))})")
        listeners = [_LISTENERS] if tcp is None else [f"{_LISTENERS}&name_regex={named}"] if tcp else []
        paths = [_ROUTES, _CLUSTERS, *listeners, *([_ENDPOINTS] if endpoints else [])]
        found = dict(zip(envoys, self._of_envoys([*filter(None, envoys.values())], paths), strict=True))
        # Where a pod may not be asked, or is none, istiod says what it has for it.
        others = {
            one.caller: one.connection
            for one, *_ in groups
            if one.connection and not isinstance(found.get(one.caller), Config)
        }
        for caller, answer in zip(others, self._of_istiod([*others.values()]), strict=True):
            found[caller] = answer if isinstance(answer, Config) else found.get(caller, answer)
        return {one.caller: found[group[0].caller] for group in groups for one in group}

    def _of_envoys(self, proxies: Sequence[Proxy], paths: Sequence[str]) -> list[Config | KubectlError]:
        questions = [Question(one.namespace, one.pod, one.port, path) for one in proxies for path in paths]
        answers = api.pods(self.kubectl).get(questions) if questions else []
        return [_parsed(answers[at : at + len(paths)]) for at in range(0, len(answers), len(paths))]

    def _of_istiod(self, connections: Sequence[Connection]) -> list[Config | KubectlError]:
        if not (self.istiods and connections):
            return []
        return [one if isinstance(one, KubectlError) else _config(one) for one in self.istiods.sent(connections)]


def read(kubectl: Kubectl) -> Callers:
    """By one question for the pods and one to each istiod. Raises `KubectlError`."""
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(_connections, kubectl)
        there: set[tuple[str, str]] = set()
        found: list[Known] = []
        for pod in api.pods(kubectl).labelled(names.INJECTED):
            there.add((pod["metadata"]["name"], pod["metadata"]["namespace"]))
            found += [_known(pod, proxy) for proxy in envoy.running(kubectl, [pod])]
        istiods, connections, silence = asking.result()
    known = [replace(one, connection=connections.get(one.key)) for one in found]
    elsewhere = [one for key, one in connections.items() if key not in there]
    if elsewhere and istiods:
        try:
            labels = istiods.clients()
        except (KubectlError, ValueError):
            labels = {}
        known += [_without_pod(one, labels.get(f"{one.pod}.{one.namespace}", {})) for one in elsewhere]
    return Callers(kubectl, known, istiods, silence)


def _newest(one: Known) -> tuple[int, ...]:
    return tuple(sorted(one.connection.pushes.values())) if one.connection else ()


def _connections(kubectl: Kubectl) -> tuple[Istiods | None, Mapping[tuple[str, str], Connection], str]:
    try:
        istiods = Istiods.find(kubectl)
        if not istiods.pods:
            return None, {}, "there is no istiod in the cluster to ask"
        return istiods, latest(istiods.connections()), ""
    except (KubectlError, ValueError) as error:
        return None, {}, f"istiod cannot be asked: {str(error).splitlines()[-1] if str(error) else error}"


def _known(pod: Mapping[str, Any], proxy: Proxy) -> Known:
    labels = labels_of(pod)
    caller = Caller(proxy.namespace, proxy.pod, labels, proxy.is_gateway)
    shared = frozenset((key, value) for key, value in labels.items() if key not in _OWN_LABELS)
    revision = annotations_of(pod).get("istio.io/rev", "")
    template = (proxy.namespace, shared, revision)
    return Known(caller, proxy, None, template)


def _without_pod(connection: Connection, labels: Mapping[str, str]) -> Known:
    caller = Caller(connection.namespace, connection.pod, labels, has_pod=False)
    return Known(caller, None, connection, (connection.namespace, frozenset(labels.items()), "without a pod"))


def of_dump(proxy: Dump) -> Config:
    """From the whole of an Envoy's configuration."""
    return Config(
        tuple(host for table in proxy.routes.values() for host in _virtual_hosts(table.body)),
        tuple(one for listener in proxy.listeners.values() for one in _of_listener(listener.body)),
        {name: cluster.object for name, cluster in proxy.clusters.items()},
    )


def _parsed(answers: Sequence[bytes | KubectlError]) -> Config | KubectlError:
    try:
        said = [json.loads(api.said(answer)) for answer in answers]
        config = _config(entry for answer in said for entry in answer.get("configs", ()))
        if "cluster_statuses" not in said[-1]:
            return config
        clusters = said[-1]["cluster_statuses"]
        return replace(config, reached=frozenset(one["name"] for one in clusters if one.get("host_statuses")))
    except KubectlError as error:
        return error
    except ValueError as error:
        return KubectlError(f"what its proxy says cannot be read: {error}")


def _config(entries: Iterable[Mapping[str, Any]]) -> Config:
    """From parts of `/config_dump`, or from the resources that istiod sent."""
    hosts: list[VirtualHost] = []
    connections: list[Connections] = []
    clusters: dict[str, str] = {}
    for entry in entries:
        match entry.get("@type", "").rpartition(".")[2]:
            case "DynamicRouteConfig":
                hosts += _virtual_hosts(entry.get("route_config", {}))
            case "RouteConfiguration":
                hosts += _virtual_hosts(entry)
            case "DynamicListener":
                connections += _of_listener(entry.get("active_state", {}).get("listener", {}))
            case "Listener":
                connections += _of_listener(entry)
            case "DynamicCluster":
                clusters[entry["cluster"]["name"]] = dump.istio_object(entry["cluster"])
            case "Cluster":
                clusters[entry["name"]] = dump.istio_object(entry)
    return Config(tuple(hosts), tuple(connections), clusters)


def _virtual_hosts(table: Mapping[str, Any]) -> list[VirtualHost]:
    return [
        VirtualHost(host["name"], tuple(host.get("domains", ())), tuple(dump.routed(host)))
        for host in table.get("virtual_hosts", ())
    ]


def _of_listener(listener: Mapping[str, Any]) -> list[Connections]:
    socket = listener.get("address", {}).get("socket_address", {})
    return [
        Connections(
            socket.get("address", ""),
            socket.get("port_value", 0),
            dump.Route("", "", dump.istio_object(chain), dump.destinations(tcp)),
        )
        for chain in dump.chains(listener)
        for tcp in dump.filters(chain, dump.TCP)
    ]
