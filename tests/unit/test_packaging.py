"""The wheel: its contents, its top-level names, and settings where it is installed."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest

PROJECT = Path(__file__).resolve().parents[2]
TOP_LEVEL = {"activities", "db", "drain", "logflume", "logflume_cli", "web", "workflows"}
PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


def _project_files() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    names = [Path(name) for name in listing.stdout.split("\0") if name]
    return [name for name in names if (PROJECT / name).is_file()]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with nothing but a wheel built from the tracked files."""
    source, wheels, site = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "site"))
    for name in _project_files():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / name, source / name)
    offline = ["--no-index", "--no-deps"]
    build = [*PIP, "wheel", *offline, "--no-build-isolation"]
    subprocess.run([*build, f"--wheel-dir={wheels}", str(source)], check=True)
    install = [*PIP, "install", *offline, "--no-compile", f"--target={site}"]
    subprocess.run([*install, *map(str, wheels.iterdir())], check=True)
    return site


def test_the_wheel_installs_only_our_packages_with_all_their_files(site):
    others = re.compile(r"\..*|.*\.dist-info|bin")
    assert {path.name for path in site.iterdir() if not others.fullmatch(path.name)} == TOP_LEVEL
    installed = {
        path.relative_to(site)
        for name in TOP_LEVEL
        for path in (site / name).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    }
    # bin/setup installs the Pusher server in a checkout.
    expected = {
        path
        for path in _project_files()
        if path.parts[0] in TOP_LEVEL and "soketi" not in path.parts
    }
    assert installed == expected


def test_every_top_level_name_belongs_to_this_distribution_alone():
    owners = packages_distributions()
    assert {name: set(owners.get(name, ())) for name in TOP_LEVEL} == {
        name: {"logflume"} for name in TOP_LEVEL
    }


def test_the_project_cannot_be_uploaded_to_an_index():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    assert "Private :: Do Not Upload" in project["classifiers"]


@pytest.mark.parametrize("is_set", [False, True])
def test_an_installed_process_reads_a_stack_file_only_if_the_environment_names_its_folder(
    site, tmp_path, is_set
):
    """In a checkout it is read from `.stack` beside the packages; here that is site-packages."""
    folder = tmp_path if is_set else site / ".stack"
    folder.mkdir(exist_ok=True)
    (folder / "settings.json").write_text(json.dumps({"web": {"port": 1111}}))
    # -S ignores the editable installation of the checkout.
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    environment = {"PYTHONPATH": os.pathsep.join([str(site), *libraries])}
    if is_set:
        environment["LOGFLUME_STACK__DATA_DIR"] = str(folder)
    code = "import sys; from logflume_cli.main import main; sys.argv[1:] = ['config']; main()"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    settings = json.loads(done.stdout)
    assert settings["web"]["port"] == (1111 if is_set else 8080)
    assert settings["stack"]["data_dir"] == (str(folder) if is_set else None)


def test_the_client_needs_only_click(site, tmp_path):
    """A command that needs more says which extra has it."""
    metadata = next(site.glob("logflume-*.dist-info/METADATA")).read_text()
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata, re.MULTILINE)
    assert required == ["click"]
    (tmp_path / "click").symlink_to(Path(click.__file__).parent)
    environment = {"PYTHONPATH": os.pathsep.join([str(site), str(tmp_path)])}
    code = "import sys; from logflume_cli.main import main; sys.argv[1:] = {!r}; main()"
    for arguments, out, err, status in (
        (["run", "--", "echo", "hello"], "hello\n", "the log is not shipped: set LOGFLUME_", 0),
        (["drain"], "", "logflume[server,stack]", 1),
    ):
        command = [sys.executable, "-S", "-c", code.format(arguments)]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stdout) == (status, out), done.stderr
        assert err in done.stderr
