"""Documentation: links, named files and settings, and decision records are valid."""

import re
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
PAGES = sorted([*PROJECT.glob("*.md"), *PROJECT.glob("docs/**/*.md")])
RECORDS = sorted(PROJECT.glob("docs/decisions/*.md"))
LINK = re.compile(r"\]\(([^)\s]+)\)")
FOLDERS = (
    "activities|bench|bin|db|deploy|docs|drain|logflume|logflume_cli|monitoring|tests|web|workflows"
)
FILE = re.compile(rf"(?<![\w./-])(?:{FOLDERS})/[\w./-]*\w\.(?:py|md|sql|js|yaml|pml|json)\b")
PLACEHOLDER = re.compile("NAME|NNNN")
SETTING = re.compile(r"\bLOGFLUME_[A-Z0-9]+__[A-Z0-9_]+")
SETTINGS = set(SETTING.findall((PROJECT / "docs/settings.md").read_text()))


def without_code(page: Path) -> str:
    """A page's text without its code blocks."""
    return re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub derives them."""
    headings = re.findall(r"^#+ +(.*)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_resolve(page: Path) -> None:
    for link in LINK.findall(without_code(page)):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_named_files_exist(page: Path) -> None:
    named = [name for name in FILE.findall(page.read_text()) if not PLACEHOLDER.search(name)]
    assert [name for name in named if not (PROJECT / name).exists()] == []


def test_named_settings_exist() -> None:
    assert {name for page in PAGES for name in SETTING.findall(page.read_text())} <= SETTINGS


def test_decision_records_are_numbered_dated_and_short() -> None:
    assert [int(record.name[:4]) for record in RECORDS] == list(range(1, len(RECORDS) + 1))
    for record in RECORDS:
        lines = record.read_text().splitlines()
        assert re.fullmatch(rf"# {int(record.name[:4])}\. .+", lines[0]), record.name
        assert lines[2].startswith("Status: "), record.name
        assert re.match(r"Date: \d{4}-\d\d-\d\d", lines[3]), record.name
        assert len(lines) <= 50, record.name
