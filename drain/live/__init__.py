"""Forwards committed parts to Pusher: best effort, without delaying ingest."""
