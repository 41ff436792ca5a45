"""Live readers of `/stream`: one feed for each log, one poller for all feeds of a process."""
