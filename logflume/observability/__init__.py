"""Logs, metrics, health and traces of a process.

Without a collector or a DSN nothing leaves the process.
"""
