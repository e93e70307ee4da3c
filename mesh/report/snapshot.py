"""Prints as JSON what the program of the checkout in the current folder declares for a stack.

A script that runs with that checkout's own code, which may be older than this file: nothing but `mesh.declared` and
`config` is taken from it.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

import pulumi

from config import ConfigError
from mesh.declared import declared


def main(stack: str) -> None:
    answer: dict[str, object] = {"resources": []}
    if Path(f"Pulumi.{stack}.yaml").exists():
        try:
            answer = {"resources": [asdict(resource) for resource in declared(stack)]}
        except (ConfigError, pulumi.RunError) as error:
            answer = {"problems": str(error)}
    json.dump(answer, sys.stdout, default=list)


if __name__ == "__main__":
    main(sys.argv[1])
