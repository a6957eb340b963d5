"""Outbox, consumers and dead letters, over one delivery table or RabbitMQ."""
