"""Prints the Debian and Python packages of the image that it runs in, as a CycloneDX SBOM."""

import json
import subprocess
from importlib.metadata import distributions
from urllib.parse import quote


def component(kind: str, name: str, version: str) -> dict[str, str]:
    """Return one package; `kind` is the beginning of its package URL."""
    purl = f"pkg:{kind}/{quote(name)}@{quote(version, safe='')}"
    return {"type": "library", "name": name, "version": version, "purl": purl}


listing = subprocess.run(
    ["/usr/bin/dpkg-query", "--show", "--showformat=${Package} ${Version}\n"],
    capture_output=True, text=True, check=True,
)  # fmt: skip
debian = [component("deb/debian", *line.split()) for line in listing.stdout.splitlines()]
python = [
    component("pypi", item.name.lower().replace("_", "-"), item.version)
    for item in sorted(distributions(), key=lambda item: item.name.lower())
]
print(json.dumps(
    {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": python + debian},
    indent=1,
))  # fmt: skip
