"""The certificates of one cluster and the kubeconfig of its administrator."""

import json
from base64 import b64encode
from pathlib import Path

from .commands import run
from .instance import Instance

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650")
_SERVICE_ADDRESS = "10.96.0.1"


def create(instance: Instance, folder: Path) -> None:
    """Writes a certificate authority, certificates of server and administrator, and the key of service accounts."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    run(
        ["openssl", "req", "-x509", *_KEY, "-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=local-ca"],
        cwd=folder,
    )
    service = "kubernetes.default.svc.cluster.local"
    names = [f"IP:{address}" for address in (instance.address, "127.0.0.1", _SERVICE_ADDRESS)]
    names += [f"DNS:{name}" for name in ("localhost", "kubernetes", "kubernetes.default", service[:-14], service)]
    _sign(folder, "server", "/CN=kube-apiserver", f"subjectAltName={','.join(names)}")
    _sign(folder, "admin", "/O=system:masters/CN=admin")
    run(["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "sa.key"], cwd=folder)


def _sign(folder: Path, name: str, subject: str, *extensions: str) -> None:
    uses = (
        "keyUsage=digitalSignature",
        "extendedKeyUsage=serverAuth,clientAuth",
        "basicConstraints=CA:false",
    )
    added = [part for extension in (*uses, *extensions) for part in ("-addext", extension)]
    files = ["-CA", "ca.crt", "-CAkey", "ca.key", "-keyout", f"{name}.key", "-out", f"{name}.crt"]
    run(["openssl", "req", "-x509", *_KEY, *files, "-subj", subject, *added], cwd=folder)


def kubeconfig(instance: Instance, folder: Path) -> str:
    """A kubeconfig with everything inside, so that it can be read from anywhere."""

    def data(name: str) -> str:
        return b64encode((folder / name).read_bytes()).decode()

    cluster = {"server": f"https://{instance.address}:6443", "certificate-authority-data": data("ca.crt")}
    user = {"client-certificate-data": data("admin.crt"), "client-key-data": data("admin.key")}
    name = instance.context
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }
    return json.dumps(content, indent=1) + "\n"  # JSON is YAML


def write_private(path: Path, text: str) -> None:
    """Writes a file that only its owner may read, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    fresh.touch(mode=0o600)
    fresh.write_text(text)
    fresh.replace(path)
