"""What all stages share: domain types, errors, settings, the wire contract, the archive, telemetry.

Imports no stage; the import contracts in `pyproject.toml` order what is inside.
"""
