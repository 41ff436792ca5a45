"""The local stack: real RabbitMQ, Postgres, Temporal and S3 on 127.0.0.1, and our services.

May import settings, errors and `db.migrate`; nothing of the pipeline imports it.
"""
