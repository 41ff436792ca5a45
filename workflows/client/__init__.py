"""The Temporal client: connection, signals and queries, schedules, signal history, tracing.

Workflow definitions never import it.
"""
