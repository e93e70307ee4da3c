"""A stand-in for GitHub: its API for the comments on one pull request, and what its runner makes of a workflow."""

from __future__ import annotations

import json
import re
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

TOKEN = "token-of-the-stand-in"  # noqa: S105


@dataclass
class GitHub:
    """`comments` are those on pull request 7 of example/shop, oldest first."""

    url: str = ""
    comments: list[dict[str, Any]] = field(default_factory=list)
    page: int = 100

    @property
    def environment(self) -> dict[str, str]:
        return {
            "GITHUB_API_URL": self.url,
            "GITHUB_REPOSITORY": "example/shop",
            "GITHUB_TOKEN": TOKEN,
            "PULL_REQUEST": "7",
        }

    def answer(self, method: str, path: str, content: Any) -> Any:
        """None where GitHub would say 404."""
        match method, path.partition("?")[0].split("/")[1:]:
            case "GET", ["repos", "example", "shop", "issues", "7", "comments"]:
                found = re.search(r"[?&]page=(\d+)", path)
                start = (int(found[1]) - 1 if found else 0) * self.page
                return self.comments[start : start + self.page]
            case "POST", ["repos", "example", "shop", "issues", "7", "comments"]:
                self.comments.append({"id": 1000 + len(self.comments), **content})
                return self.comments[-1]
            case "PATCH", ["repos", "example", "shop", "issues", "comments", number]:
                (comment,) = (comment for comment in self.comments if comment["id"] == int(number))
                comment.update(content)
                return comment
        return None


@contextmanager
def github() -> Iterator[GitHub]:
    state = GitHub()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            known = self.headers["Authorization"] == f"Bearer {TOKEN}"
            answer = state.answer(self.command, self.path, json.loads(content or "null")) if known else None
            self.send_response(404 if answer is None else 200)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Workflow:
    """A workflow of the checkout in `folder`."""

    folder: Path
    name: str

    @property
    def document(self) -> Mapping[str, Any]:
        content: Mapping[str, Any] = yaml.safe_load((self.folder / f".github/workflows/{self.name}.yml").read_text())
        return content

    def run(
        self, job: str, expressions: Mapping[str, str], environment: Mapping[str, str]
    ) -> list[subprocess.CompletedProcess[str]]:
        """Runs the steps of a job in order, up to the first that fails, as GitHub's runner does: `bash -e`, and
        `expressions` say what stands for each `${{ … }}`. Steps with `uses` are left out: they prepare a machine."""
        done = []
        for step in self.document["jobs"][job]["steps"]:
            if "run" not in step:
                continue
            own = {key: _filled(value, expressions) for key, value in step.get("env", {}).items()}
            done.append(
                subprocess.run(
                    ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c", _filled(step["run"], expressions)],
                    cwd=self.folder,
                    env={**environment, **own},
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    check=False,
                )
            )
            if done[-1].returncode:
                break
        return done


def _filled(text: str, expressions: Mapping[str, str]) -> str:
    return re.sub(r"\$\{\{\s*(.+?)\s*\}\}", lambda found: expressions[found[1]], text)
