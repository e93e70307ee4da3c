"""The Secret that the pods of one service take values of their environment from."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import pulumi
from pulumi_command import local
from pulumi_kubernetes import core

import names
from components.commands import python
from components.kubernetes import metadata


@dataclass(frozen=True)
class EnvSecretArgs:
    """`values` are the secret ones by config key; the Secret has them under the same keys, and nothing else."""

    values: Mapping[str, pulumi.Output[str]]
    namespace: pulumi.Input[str]
    labels: Mapping[str, str]


class EnvSecret(pulumi.ComponentResource):
    """Named after the service, so that a changed value is an update; `checksum` is what makes the pods follow it.

    https://kubernetes.io/docs/concepts/configuration/secret/
    """

    def __init__(self, name: str, args: EnvSecretArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("istio-governance:secret:EnvSecret", name, None, opts)
        self._values = args.values
        # Of stringData a server-side apply would leave a key behind that is declared no more.
        # https://github.com/kubernetes/kubernetes/issues/108008
        secret = names.env_secret(name)
        self.secret = core.v1.Secret(
            secret,
            metadata=metadata(secret, namespace=args.namespace, labels=args.labels),
            data={key: value.apply(_base64) for key, value in args.values.items()},
            opts=pulumi.ResourceOptions(parent=self),
        )
        self._key = local.Command(
            names.env_key(name),
            create=python("-c 'import secrets; print(secrets.token_hex())'"),
            logging=local.Logging.NONE,
            # Another key would be another checksum, and so restart the pods.
            opts=pulumi.ResourceOptions(parent=self, additional_secret_outputs=["stdout"], ignore_changes=["create"]),
        ).stdout
        self.register_outputs({})

    def checksum(self, keys: Iterable[str]) -> pulumi.Output[str]:
        """Another one when a value of `keys` is another.

        Whoever may see pods sees it, too, and a short password is soon found by its plain hash: so it is keyed, with
        random bytes that only the state has, encrypted. Being a secret itself it is in no state, preview or log.
        """
        values = pulumi.Output.all(**{key: self._values[key] for key in keys})
        digests = pulumi.Output.all(self._key, values).apply(lambda both: _digest(str(both[0]), both[1]))
        return pulumi.Output.secret(digests)


def _base64(value: str) -> str:
    return base64.b64encode(value.encode()).decode()


def _digest(key: str, values: Mapping[str, str]) -> str:
    return hmac.new(key.encode(), json.dumps(values, sort_keys=True).encode(), hashlib.sha256).hexdigest()
