"""Logs, metrics, health, traces and error reports of a process.

Nothing is sent anywhere unless a collector or a DSN is configured.
"""
