"""The HTTP service: the API that runners, the site and people speak, and its health.

May import the domain, errors, settings, db, archive and the workflows' types; never the drain or
an activity.
"""
