"""Puts a report on the pull request, in the place of the one from the last push: `python -m ci.comment FILE`.

The comment is known by its first line, which `mesh diff --markdown` writes and nobody sees. The environment says where:
GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_TOKEN (with `pull-requests: write`) and PULL_REQUEST, the number.
https://docs.github.com/en/rest/issues/comments
"""

from __future__ import annotations

import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_PAGE = 100


def put(body: str, api: str, repository: str, number: str, token: str) -> str:
    """Updates the comment with the same first line, or makes one; says which. Raises `urllib.error.URLError`."""
    comments = f"{api}/repos/{repository}/issues/{number}/comments"
    marker = body.partition("\n")[0]
    for comment in _all(comments, token):
        if comment["body"].startswith(marker):
            _call("PATCH", f"{api}/repos/{repository}/issues/comments/{comment['id']}", token, {"body": body})
            return "updated"
    _call("POST", comments, token, {"body": body})
    return "made"


def _all(comments: str, token: str) -> Iterator[Mapping[str, Any]]:
    page = 1
    while found := _call("GET", f"{comments}?per_page={_PAGE}&page={page}", token):
        yield from found
        page += 1


def _call(method: str, url: str, token: str, content: object = None) -> Any:
    headers = {
        "Authorization": f"Bearer {token}",
        "Accept": "application/vnd.github+json",
        "X-GitHub-Api-Version": "2022-11-28",
    }
    data = None if content is None else json.dumps(content).encode()
    request = urllib.request.Request(url, data, headers, method=method)  # noqa: S310 (GitHub's own URL)
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.loads(answer.read())


def main(file: str) -> None:
    place = {name: os.environ[name] for name in ("GITHUB_API_URL", "GITHUB_REPOSITORY", "PULL_REQUEST", "GITHUB_TOKEN")}
    try:
        print(f"the comment was {put(Path(file).read_text(), *place.values())}")
    except urllib.error.URLError as error:
        sys.exit(f"the comment cannot be put on pull request {place['PULL_REQUEST']}: {error}")


if __name__ == "__main__":
    main(sys.argv[1])
