"""`bin/audit` with offline advisories finds pinned versions, and says what they lack."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]


def advisory(id_: str, ecosystem: str, name: str, **affected: Any) -> dict[str, Any]:
    package = {"ecosystem": ecosystem, "name": name}
    return {"id": id_, "affected": [{"package": package, **affected}]}


def semver(*events: tuple[str, str]) -> dict[str, Any]:
    listed = [{kind: version} for kind, version in events]
    return {"ranges": [{"type": "SEMVER", "events": listed}]}


def audit(folder: Path, *advisories: dict[str, Any]) -> tuple[int, list[str]]:
    with zipfile.ZipFile(folder / "all.zip", "w") as dump:
        for one in advisories:
            dump.writestr(f"{one['id']}.json", json.dumps(one))
    script = str(PROJECT / "bin/audit_offline.py")
    command = [sys.executable, script, str(folder), "all.zip"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()


def test_offline_advisories_are_compared_with_what_is_pinned(tmp_path):
    fixed = advisory("P-1", "PyPI", "HTTPX", **semver(("introduced", "0"), ("fixed", "0.1")))
    other = advisory("N-1", "npm", "no-package-of-ours", **semver(("introduced", "0")))
    assert audit(tmp_path, fixed, other) == (0, ["no known vulnerabilities"])
    again = semver(("introduced", "0"), ("fixed", "0.1"), ("introduced", "0.2"))
    found = audit(tmp_path, advisory("P-2", "PyPI", "HTTPX", **again), other)
    assert found[0] == 1 and "httpx" in found[1][0] and "P-2" in found[1][0]
    withdrawn = advisory("P-3", "PyPI", "HTTPX", **again) | {"withdrawn": "2026-01-01T00:00:00Z"}
    code, lines = audit(tmp_path, withdrawn)
    assert (code, lines) == (1, ["npm: no advisories given, so nothing is known"])
