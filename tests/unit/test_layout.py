"""Tests share code through tests/support only."""

import ast
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_no_module_imports_a_test_or_a_conftest():
    """Such an import ties modules to each other and runs what another test sets up."""
    for path in [*TESTS.rglob("*.py"), *(TESTS.parent / "bench").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{one.name}" for one in node.names]
            elif isinstance(node, ast.Import):
                names = [one.name for one in node.names]
            else:
                continue
            for name in names:
                is_shared = not name.startswith("tests.") or name.startswith("tests.support.")
                assert is_shared and "conftest" not in name, f"{path}: imports {name}"
