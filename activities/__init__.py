"""The side effects of workflows: aggregate, archive, purge, sweep, partitions, retention."""
