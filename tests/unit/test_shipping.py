"""The recipes in docs/shipping.md that can be checked without their tools."""

import re
import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

PAGE = (Path(__file__).parents[2] / "docs" / "shipping.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "sh"])
def test_shell_recipes_are_shell(text):
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


@pytest.mark.parametrize("text", [text for kind, text in BLOCKS if kind == "yaml"])
def test_recipes_are_valid_yaml_and_kubernetes_jobs(text):
    document = yaml.safe_load(text)
    if document.get("kind"):
        kubernetes_validate.validate(document, "1.29", strict=True)
    assert len(text.splitlines()) <= 25


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_the_systemd_unit_is_valid(tmp_path):
    unit = tmp_path / "nightly.service"
    unit.write_text(next(text for kind, text in BLOCKS if kind == "ini"))
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "nightly" not in done.stderr
