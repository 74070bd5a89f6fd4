"""The queue on RabbitMQ."""

from oplata.queue.rabbitmq.queue import RabbitQueue

__all__ = ["RabbitQueue"]
