"""Forwards committed parts to Pusher; best effort, ingest never waits for it."""
