"""Makes every object of the list in objects.json, a file beside the program as many teams have one."""

import json
from pathlib import Path

from pulumi_kubernetes.apiextensions import CustomResource

for made in json.loads(Path("objects.json").read_text()):
    CustomResource(
        f"{made['kind']}-{made['metadata']['name']}",
        api_version=made["apiVersion"],
        kind=made["kind"],
        metadata={"name": made["metadata"]["name"], "namespace": made["metadata"]["namespace"]},
        spec=made["spec"],
    )
