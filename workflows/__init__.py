"""Deterministic workflow code: the log's lifecycle, its signals, queries and their types.

May import the types of the activities and the domain; never db, archive, web or network code.
"""
