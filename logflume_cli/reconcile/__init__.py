"""Reconciles the database with the archive and the workflows, as after a restore."""
