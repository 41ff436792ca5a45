"""The archive: one plain-text object per log in an S3 bucket."""
