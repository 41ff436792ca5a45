"""The HTTP service: the API that runners, the site and people speak, and its health.

May import the leaves, db, archive, live and the workflows' types; never the drain or an activity.
"""
