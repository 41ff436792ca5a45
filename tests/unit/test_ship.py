"""The shipper's settings and imports, and its spool."""

import subprocess
import sys
from dataclasses import fields

from pydantic import SecretStr

from logflume.settings.ship import ShipSettings as Documented
from logflume.ship.settings import ShipSettings


def test_the_shipper_reads_the_documented_settings():
    """It reads them without pydantic, which takes longer to import than a short command runs."""
    defaults = {
        name: "" if field.annotation == SecretStr | None else field.default
        for name, field in Documented.model_fields.items()
    }
    read = {field.name: field.default for field in fields(ShipSettings)}
    assert read == defaults | {"web_url": "", "amqp_url": ""}


def test_shipper_and_readers_import_no_library_of_the_servers():
    code = (
        "import sys, logflume_cli.main, logflume_cli.run, logflume_cli.ship, logflume_cli.logs\n"
        "import logflume.ship.over_http, logflume_cli.list\n"
        "print(*{name.split('.')[0] for name in sys.modules} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if not name.startswith("__editable__")}
    of_python = {"__main__", "_distutils_hack", "sitecustomize"}
    assert loaded <= {"click", "logflume", "logflume_cli"} | of_python
