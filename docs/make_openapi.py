#!/usr/bin/env python3
"""Prints docs/openapi.json, made from the routes; `--check` fails if the file differs."""

import json
import sys
from pathlib import Path
from typing import Any

from logflume.settings import Settings
from web.app import make_app
from web.auth import Access
from web.services import Services

FILE = Path(__file__).with_name("openapi.json")


def document() -> str:
    """The OpenAPI document as the web serves it, but with sorted keys and without a version."""
    # Only the settings of access matter, and they have defaults; handlers do not run.
    settings: Settings = Settings.model_construct()
    unused: Any = None
    access = Access(settings.web)
    app = make_app(Services(settings, access, unused, unused, unused, unused, unused, unused))
    schema = app.openapi_schema.to_schema()
    schema["info"]["version"] = "latest"
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _main(arguments: list[str]) -> None:
    if arguments not in ([], ["--check"]):
        sys.exit("usage: docs/make_openapi.py [--check]")
    if not arguments:
        sys.stdout.write(document())
    elif not FILE.exists() or FILE.read_text() != document():
        sys.exit(
            "docs/openapi.json does not match the routes: "
            "run .venv/bin/python docs/make_openapi.py >docs/openapi.json"
        )


if __name__ == "__main__":
    _main(sys.argv[1:])
