#!/usr/bin/env python3
"""Prints docs/openapi.json, made from the routes; `--check` fails if the file differs."""

import json
from typing import Any

from generated import generate

from logflume.settings import Settings
from web.app import make_app
from web.auth import Access
from web.services import Services


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


if __name__ == "__main__":
    generate("openapi.json", document)
