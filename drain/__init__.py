"""The drain: consumes parts from RabbitMQ, commits them in batches and signals the workflows."""
