"""The only place that talks to Temporal from outside: every call raises ComponentError.

Workflow definitions never import it.
"""
