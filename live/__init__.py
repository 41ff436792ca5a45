"""Live parts out: what the drain has committed goes to readers over Pusher, as best it can.

May import the domain, settings and db's types; never the drain, the web or a workflow. Whatever
happens here, ingest does not wait for it.
"""
