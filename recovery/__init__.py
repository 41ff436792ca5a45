"""Reconciling the database with the archive and the workflows, as after a restore.

May import the leaves, `db`, `archive` and the workflows' types.
"""
