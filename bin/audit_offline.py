# ruff: noqa: INP001 - a script, not a package
"""Compares the pinned dependencies with offline advisories: `bin/audit PyPI.zip npm.zip`."""

import json
import re
import sys
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

PROJECT = Path(__file__).parents[1]
Pins = dict[tuple[str, str], set[str]]


def pins() -> Pins:
    """The pinned versions by ecosystem and name."""
    found: Pins = {}
    text = (PROJECT / "requirements-dev.txt").read_text()
    for name, version in re.findall(r"^([\w.-]+)(?:\[.*\])?==([^\s;\\]+)", text, re.MULTILINE):
        found.setdefault(("PyPI", canonicalize_name(name)), set()).add(version)
    for folder in (PROJECT, PROJECT / "logflume_cli/devstack/soketi"):
        packages = json.loads((folder / "package-lock.json").read_text())["packages"]
        for path, package in packages.items():
            name = package.get("name") or path.rpartition("node_modules/")[2]
            if path and "version" in package:
                found.setdefault(("npm", name), set()).add(package["version"])
    return found


def affected(advisories: Iterable[Any], pinned: Pins) -> Iterator[str]:
    """One line for each pinned version that an advisory names."""
    for advisory in advisories:
        if "withdrawn" in advisory:
            continue
        for item in advisory.get("affected", ()):
            package = item.get("package", {})
            ecosystem, name = package.get("ecosystem", ""), package.get("name", "")
            name = canonicalize_name(name) if ecosystem == "PyPI" else name
            for version in sorted(pinned.get((ecosystem, name), ())):
                if version in item.get("versions", ()) or any(
                    _in_range(version, one["events"])
                    for one in item.get("ranges", ())
                    if one["type"] != "GIT"
                ):
                    yield f"{name} {version}: {advisory['id']} {advisory.get('summary', '')}"


def _in_range(version: str, events: list[dict[str, str]]) -> bool:
    """Whether a version is affected, by events in the order of their versions."""
    is_affected, own = False, _key(version)
    for event in events:
        ((kind, at),) = event.items()
        if kind == "introduced" and own >= _key(at):
            is_affected = True
        elif (kind == "fixed" and own >= _key(at)) or (kind == "last_affected" and own > _key(at)):
            is_affected = False
    return is_affected


def _key(version: str) -> Version:
    try:
        return Version(version)
    except InvalidVersion:  # a pre-release of npm: compare it as its release
        return Version(re.match(r"[\d.]*\d", version)[0])  # type: ignore[index]


def read(path: Path) -> Iterator[Any]:
    """The advisories of a dump."""
    with zipfile.ZipFile(path) as dump:
        for name in dump.namelist():
            if name.endswith(".json"):
                yield json.loads(dump.read(name))


def main() -> None:
    """Print what is affected, and which ecosystems the dumps lack; exit with 1 for either."""
    folder, *paths = map(Path, sys.argv[1:])
    pinned, seen, lines = pins(), set[str](), list[str]()
    for path in paths:
        advisories = list(read(folder / path))
        seen |= {i["package"]["ecosystem"] for one in advisories for i in one.get("affected", ())}
        lines += affected(advisories, pinned)
    unknown = {"PyPI", "npm"} - seen
    lines += [f"{name}: no advisories given, so nothing is known" for name in unknown]
    sys.stdout.write("\n".join(sorted(lines) or ["no known vulnerabilities"]) + "\n")
    sys.exit(bool(lines))


if __name__ == "__main__":
    main()
