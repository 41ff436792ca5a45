"""The local stack: RabbitMQ, Postgres, Temporal and S3 on 127.0.0.1, and our own processes."""
