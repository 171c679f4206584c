"""Kafka: topics on a cluster that others read and write too. Queues live elsewhere."""

from busline.transports.kafka.transport import KafkaTransport

__all__ = ["KafkaTransport"]
