"""Outbox, consumers and dead letters, over one delivery table or RabbitMQ.

A service's main, in both forms::

    def serve(service: Service[WorkflowSettings]) -> None:
        handler = on_message.handler(service.database)
        service.ready()
        service.messaging.consume({topology.WORKFLOW: handler}, service.stop)


    def main() -> None:
        run_service("workflow_engine", WorkflowSettings, serve)

A handler returns the effect that its message has; within the effect, ``outbox.send(transaction,
envelope.leads_to(…))`` sends what follows from it, and ``answering.answer`` what it was asked for.
"""
