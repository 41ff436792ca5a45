"""`bin/release --dry-run` finds each forgotten step of a release."""

import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
FILES = ("bin/release", "pyproject.toml", "deploy/kubernetes/base/kustomization.yaml",
         "docs/installation.md", "CHANGELOG.md", "db/sqitch.plan")  # fmt: skip
HISTORIES = "tests/replay/histories"


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository in which 0.0.9 was released and 9.9.9 is ready."""
    folder = tmp_path_factory.mktemp("release")
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(PROJECT / name, folder / name)
    current = tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]
    edit(folder, "pyproject.toml", f'\nversion = "{current}"', '\nversion = "9.9.9"')
    edit(folder, FILES[2], f"newTag: {current}", "newTag: 9.9.9")
    edit(folder, "docs/installation.md", f"logflume:{current}", "logflume:9.9.9")
    heading = "## [Unreleased]\n\n## [9.9.9] - 2027-01-01\n\nFirst.\n"
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}")
    with (folder / "db/sqitch.plan").open("a") as plan:
        plan.write("@v9.9.9 2027-01-01T00:00:00Z logflume <team@logflume.example> # Tag\n")
    git(folder, "init", "--quiet")
    for version in ("0.0.9", "9.9.9"):
        (folder / HISTORIES / version).mkdir(parents=True)
        (folder / HISTORIES / version / "a.json").write_text("{}")
        commit(folder)
        if version == "0.0.9":
            git(folder, "tag", "v0.0.9")
    return folder


def git(folder: Path, *arguments: str) -> None:
    identity = ("-c", "user.name=x", "-c", "user.email=x@logflume.example")
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "x")


def edit(folder: Path, name: str, old: str, new: str) -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


def failures(folder: Path) -> list[str]:
    done = subprocess.run(
        [folder / "bin/release", "--dry-run", "9.9.9"], capture_output=True, text=True, check=False
    )
    found = [line[6:] for line in done.stdout.splitlines() if line.startswith("FAIL  ")]
    assert (done.returncode, done.stderr) == (1 if found else 0, "")
    return found


def test_a_complete_release_passes(released):
    assert failures(released) == []
    git(released, "tag", "v9.9.9")
    assert failures(released) == []
    git(released, "tag", "--delete", "v9.9.9")


@pytest.mark.parametrize(
    ("name", "old", "new", "failure"),
    [
        ("pyproject.toml", "9.9.9", "9.9.8", "pyproject.toml: version"),
        (FILES[2], "9.9.9", "9.9.8", "deploy/kubernetes/base/kustomization.yaml: newTag"),
        ("docs/installation.md", "push registry.example/logflume:9.9.9",
         "push registry.example/logflume:9.9.8", "docs/installation.md: examples"),
        ("CHANGELOG.md", " - 2027-01-01", "", "CHANGELOG.md: ## [9.9.9]"),
        ("CHANGELOG.md", "## [Unreleased]\n", "## [Unreleased]\n\nA change.\n",
         "CHANGELOG.md: an empty"),
        ("db/sqitch.plan", "@v9.9.9", "late_change", "db/sqitch.plan: ends"),
        (f"{HISTORIES}/0.0.9/a.json", "{}", "[]", f"{HISTORIES}: folders of earlier"),
    ],
    ids=lambda value: value.split("/")[-1][:20],
)  # fmt: skip
def test_a_forgotten_step_is_named(released, tmp_path, name, old, new, failure):
    folder = tmp_path / "copy"
    shutil.copytree(released, folder)
    edit(folder, name, old, new)
    assert [it for it in failures(folder) if it.startswith("git: nothing is uncommitted")]
    commit(folder)
    [found] = failures(folder)
    assert found.startswith(failure)


def test_unreleased_histories_and_a_used_tag_are_named(released, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(released, folder)
    git(folder, "tag", "v9.9.9")
    (folder / HISTORIES / "9.9.9").rename(folder / HISTORIES / "unreleased")
    commit(folder)
    used, histories, changed = failures(folder)
    assert used.startswith("git: the tag v9.9.9 is unused")
    assert histories.startswith(f"{HISTORIES}: unreleased/ was renamed")
    assert changed.startswith(f"{HISTORIES}: folders of earlier")
