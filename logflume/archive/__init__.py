"""The archive: one plain object for each log in an S3 bucket.

May import settings, errors and nothing else of ours.
"""
