"""Live readers: following a log while it grows, and forwarding its parts to Pusher.

May import the domain, settings and db; never the drain, the web or a workflow. Whatever happens
here, ingest does not wait for it.
"""
