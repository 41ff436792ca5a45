"""Live streams: one feed per watched log, one batched poller for all feeds of a process."""
