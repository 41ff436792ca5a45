"""Traces: one for each log, from RabbitMQ to the archive, sent to a collector by OTLP.

`spans` is what everyone calls; `otlp` alone knows OpenTelemetry, and is loaded when a collector's
address is set.
"""
