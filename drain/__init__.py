"""The drain: takes parts from RabbitMQ, commits them in batches, tells each log's workflow.

May import the domain, the wire's names, settings, db and the workflows' types; never the web, the
archive or an activity.
"""
