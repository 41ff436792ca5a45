"""Postgres: the sqitch project, and every query that any part of logflume makes.

May import the domain's types, errors and settings, nothing else of ours.
"""
