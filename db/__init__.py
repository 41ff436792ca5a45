"""Postgres: the sqitch project, and every query of logflume.

Imports only the package `logflume`.
"""
