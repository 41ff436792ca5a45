"""Deterministic workflow definitions, their inputs and results; `client` talks to Temporal.

Definitions import the types of the activities and the domain, never database or network code.
"""
