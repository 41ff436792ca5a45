"""The side effects of a log's life: aggregate, archive, verify, purge, delete archive.

May import db, archive, the domain and the settings; never a workflow, the drain or the web.
"""
