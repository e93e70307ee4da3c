"""The service that a command is about, and who calls it: or the command ends."""

from __future__ import annotations

from config import StackConfig
from mesh import cli
from mesh.cluster.probe import Caller, NoCallerError, find_caller
from mesh.cluster.service import LiveService


def live_service(config: StackConfig, service: str) -> LiveService:
    if service not in config.services:
        known = ", ".join(config.services)
        raise cli.Failure(f"there is no service {service}; the stack has {known}", cli.Exit.USAGE)
    return LiveService.of(config, service)


def caller_of(live: LiveService, workload: str, image: str) -> Caller:
    try:
        return find_caller(live.kubectl, live.config, live.name, workload, image)
    except NoCallerError as error:
        raise cli.Failure(str(error), cli.Exit.USAGE) from None


def url_of(live: LiveService, path: str) -> str:
    port = next(iter(live.config.services[live.name].ports.values())).port
    return f"http://{live.name}.{live.namespace}:{port}/{path.removeprefix('/')}"
