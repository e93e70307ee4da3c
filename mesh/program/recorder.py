"""Runs a Pulumi program without an engine and records what it registers."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.struct_pb2 import ListValue, Struct  # type: ignore[import-untyped]
from pulumi.runtime import rpc
from pulumi.runtime.config import set_all_config
from pulumi.runtime.mocks import MockEngine
from pulumi.runtime.proto import resource_pb2
from pulumi.runtime.settings import Settings, configure
from pulumi.runtime.stack import run_in_stack

PROJECT = "istio-governance"
ROOT_TYPE = "pulumi:pulumi:Stack"


@dataclass(frozen=True)
class Resource:
    """One registration, as the engine gets it. `parent` and `dependencies` are URNs."""

    urn: str
    type: str
    name: str
    parent: str
    dependencies: frozenset[str]
    provider: str
    inputs: Mapping[str, Any]
    ignore_changes: tuple[str, ...]
    timeouts: Mapping[str, str]
    protect: bool = False
    replace_on_changes: tuple[str, ...] = ()

    @property
    def kind(self) -> str:
        return self.type.split(":")[-1]

    @property
    def line(self) -> str:
        """The part of the URN that the program decides: type with the parents' types, and name."""
        return "::".join(self.urn.split("::")[2:])


@dataclass
class Recording:
    """Everything that one run of a program registered."""

    resources: dict[str, Resource] = field(default_factory=dict)
    outputs: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self.resources.values())

    def named(self, kind: str) -> dict[str, Resource]:
        """The resources of a kind (`Deployment`, `Release`, …) by name."""
        return {resource.name: resource for resource in self if resource.kind == kind}

    def one(self, kind: str) -> Resource:
        (resource,) = self.named(kind).values()
        return resource

    def spec(self, kind: str, name: str) -> Any:
        return self.named(kind)[name].inputs["spec"]

    def parent(self, resource: Resource) -> Resource | None:
        return self.resources.get(resource.parent)

    def before(self, resource: Resource) -> set[str]:
        """The URNs of all that must be there before `resource`; a child waits for all that its parent waits for."""
        done: set[str] = set()
        todo = [resource]
        while todo:
            current = todo.pop()
            provider = current.provider.rpartition("::")[0]
            for urn in {*current.dependencies, current.parent, provider} & self.resources.keys() - done:
                done.add(urn)
                todo.append(self.resources[urn])
        return done

    @property
    def stack_outputs(self) -> Mapping[str, Any]:
        return next(outputs for urn, outputs in self.outputs.items() if ROOT_TYPE in urn)


class Monitor:
    """Answers in the engine's place: every resource comes out as it went in."""

    def __init__(self, stack: str) -> None:
        self.stack, self.recording = stack, Recording()

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802
        _, _, parents, _ = request.parent.split("::") if request.parent else ("", "", ROOT_TYPE, "")
        qualified = request.type if parents == ROOT_TYPE else f"{parents}${request.type}"
        urn = f"urn:pulumi:{self.stack}::{PROJECT}::{qualified}::{request.name}"
        if request.type != ROOT_TYPE:
            if urn in self.recording.resources:
                raise ValueError(f"duplicate resource URN '{urn}'; try giving it a unique name")
            self.recording.resources[urn] = Resource(
                urn,
                request.type,
                request.name,
                request.parent,
                frozenset(request.dependencies),
                request.provider,
                _as_sent(request.object),
                tuple(request.ignoreChanges),
                {step: getattr(request.customTimeouts, step) for step in ("create", "update", "delete")},
                request.protect,
                tuple(request.replaceOnChanges),
            )
        identity = f"{request.name}-id" if request.custom else ""
        return resource_pb2.RegisterResourceResponse(urn=urn, id=identity, object=request.object)

    def RegisterResourceOutputs(self, request: Any) -> None:  # noqa: N802
        self.recording.outputs[request.urn] = rpc.deserialize_properties(request.outputs)

    def SupportsFeature(self, request: Any) -> Any:  # noqa: N802
        return resource_pb2.SupportsFeatureResponse(hasSupport=request.id != "outputValues")

    def RegisterPackage(self, _request: Any) -> Any:  # noqa: N802
        return resource_pb2.RegisterPackageResponse(ref="package")

    def SignalAndWaitForShutdown(self, _request: Any) -> None:  # noqa: N802
        return None


def _as_sent(value: Any) -> Any:
    """Plain values. Pulumi's own reading would call a whole object secret that has one secret deep inside."""
    if isinstance(value, Struct):
        found = {key: sent for key, inner in value.items() if (sent := _as_sent(inner)) is not None}
        return _secret(found, found.get("value")) if rpc.is_rpc_secret(found) else found
    if isinstance(value, ListValue):
        return [_as_sent(inner) for inner in value]
    return None if value == rpc.UNKNOWN else value


def _secret(mark: Mapping[str, Any], value: Any) -> Any:
    """With every value in it marked on its own, as a whole object may be one secret: all data of a Secret is."""
    if isinstance(value, Mapping):
        return {key: _secret(mark, inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_secret(mark, inner) for inner in value]
    return {**mark, "value": value}


def record(
    program: Callable[[], object],
    stack: str = "test",
    config: Mapping[str, str] | None = None,
    secrets: Sequence[str] = (),
) -> Recording:
    """What `program` registers when it runs as `stack` with this raw configuration. Its errors are raised."""

    def body() -> None:
        program()

    def run() -> Recording:
        monitor = Monitor(stack)
        configure(Settings(project=PROJECT, stack=stack, monitor=monitor, engine=MockEngine(None)))
        set_all_config(dict(config or {}), list(secrets))
        asyncio.run(run_in_stack(body))
        return monitor.recording

    # Pulumi keeps its state in context variables: a context of its own leaves nothing behind for the next run.
    return contextvars.copy_context().run(run)
