"""What services say to one another, as a page and as an AsyncAPI 3.0 document."""

import inspect
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from message_contracts import topology
from message_contracts.catalogue import MESSAGES
from message_contracts.message import Message

Docstrings = Callable[[type[BaseModel]], dict[str, str]]

SENDERS = {
    "study": "dicom_listener",
    "inference.requested": "workflow_engine",
    "explanation": "admin_api",
    "inference": "inference_worker",
    "attachment.requested": "workflow_engine",
    "attachment": "dicom_sender",
    "commitment": "dicom_listener",
    "rejection.requested": "workflow_engine",
    "rejection": "dicom_sender",
    "completion.requested": "workflow_engine",
    "conflict.decided": "workflow_engine",
    "instance.duplicated": "dicom_listener",
    "conflict.settled": "dicom_listener",
    "conflict.unsettled": "dicom_listener",
    "quarantine.decided": "admin_api",
    "report.requested": "workflow_engine",
    "report": "fhir_bridge",
}
"""Message type, or its noun, to the package that sends it."""

CONSUMERS = {
    topology.INTAKE: "dicom_listener",
    topology.WORKFLOW: "workflow_engine",
    topology.INFERENCE_URGENT: "inference_worker",
    topology.INFERENCE_ROUTINE: "inference_worker",
    topology.ATTACHMENT: "dicom_sender",
    topology.REPORT: "fhir_bridge",
}
"""Queue to the package that consumes it."""

_VERSION = "1"


def sender_of(message: type[Message]) -> str:
    """Return the package that sends a message."""
    return SENDERS.get(message.TYPE) or SENDERS[message.TYPE.partition(".")[0]]


def queues_of(message: type[Message]) -> list[topology.Queue]:
    """Return the queues that a message may come to, whichever lane it takes."""
    return [
        queue
        for queue in topology.QUEUES.values()
        if any(
            key == message.TYPE or key.startswith(f"{message.TYPE}.") for key in queue.routing_keys
        )
    ]


def messages_page(docstrings: Docstrings) -> str:
    """Return the catalogue and the topology in Markdown."""
    lines = [
        "# Messages",
        "",
        "Every message is a CloudEvents 1.0 event in JSON, structured mode, published to the topic",
        f"exchange `{topology.EXCHANGE}` or kept in the database (embedded form). Messages carry",
        "references; pixels and names stay in the store. A receiver passes over fields that it",
        "does not know. Delivery is at least once: the same `id` twice is the same message twice.",
        "Beside CloudEvents' own attributes every event has `correlationid` (the id of the message",
        "that began the journey), `causationid` (the id of the one that led to it; absent in the",
        "first) and, where tracing is on, `traceparent` (W3C Trace Context).",
        "The same in a form for machines: [asyncapi.json](asyncapi.json).",
        "",
        "| message | sent by | read by | queue |",
        "| --- | --- | --- | --- |",
    ]
    for message in MESSAGES.values():
        queues = queues_of(message)
        readers = sorted({CONSUMERS[queue.name] for queue in queues})
        names = ", ".join(f"`{queue.name}`" for queue in queues)
        anchor = message.TYPE.replace(".", "")
        lines.append(
            f"| [`{message.TYPE}`](#{anchor}) | {sender_of(message)} | {', '.join(readers)} "
            f"| {names} |"
        )
    for message in MESSAGES.values():
        lines += ["", *_message_section(message, docstrings)]
    lines += ["", *_topology_section()]
    return "\n".join(lines) + "\n"


def _message_section(message: type[Message], docstrings: Docstrings) -> list[str]:
    notes = docstrings(message)
    schema = message.model_json_schema()
    required = set(schema.get("required", ()))
    lines = [
        f"## {message.TYPE}",
        "",
        f"`{message.event_type()}`. {inspect.getdoc(message)}",
        "",
        "| field | type | required | meaning |",
        "| --- | --- | --- | --- |",
    ]
    for name, field in schema["properties"].items():
        needed = "yes" if name in required else "no"
        lines.append(f"| `{name}` | {_type_of(field, schema)} | {needed} | {notes.get(name, '')} |")
    return lines


def _type_of(field: dict[str, Any], schema: dict[str, Any]) -> str:
    if "$ref" in field:
        part = schema["$defs"][str(field["$ref"]).rpartition("/")[2]]
        if "enum" in part:
            return " or ".join(f"`{value}`" for value in part["enum"])
        return f"{{{', '.join(part['properties'])}}}"
    if "anyOf" in field:
        return " or ".join(_type_of(option, schema) for option in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {_type_of(field['items'], schema)}"
    return str(field.get("format", field.get("type", "")))


def _topology_section() -> list[str]:
    lines = [
        "## Queues",
        "",
        "A transient failure is tried again after a delay that grows from the first by the",
        "multiplier up to the cap; when the attempts are used up, or trying again cannot help, the",
        "message becomes a dead letter (`countersign dead-letters list`). With RabbitMQ every",
        f"queue is a quorum queue whose own dead letters go to `{topology.DEAD_LETTER_EXCHANGE}`.",
        "",
        "| queue | read by | first delay | multiplier | cap | attempts |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for queue in topology.QUEUES.values():
        retry = queue.retry
        lines.append(
            f"| `{queue.name}` | {CONSUMERS[queue.name]} | {retry.first_delay_s:g} s "
            f"| {retry.multiplier:g} | {retry.cap_s:g} s | {retry.attempts} |"
        )
    return lines


def asyncapi(docstrings: Docstrings) -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document: a channel per queue, an operation per side of it."""
    channels: dict[str, Any] = {}
    operations: dict[str, Any] = {}
    for queue in topology.QUEUES.values():
        bound = [message for message in MESSAGES.values() if queue in queues_of(message)]
        channel = {"$ref": f"#/channels/{queue.name}"}
        channels[queue.name] = {
            "address": queue.name,
            "messages": {each.TYPE: _ref("messages", each) for each in bound},
            "bindings": {"amqp": {"is": "queue", "queue": {"name": queue.name, "durable": True}}},
        }
        operations[f"{CONSUMERS[queue.name]}.receives.{queue.name}"] = {
            "action": "receive",
            "channel": channel,
            "messages": [_in_channel(queue, each) for each in bound],
        }
        for sender in sorted({sender_of(each) for each in bound}):
            operations[f"{sender}.sends.{queue.name}"] = {
                "action": "send",
                "channel": channel,
                "messages": [_in_channel(queue, m) for m in bound if sender_of(m) == sender],
            }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Countersign",
            "version": _VERSION,
            "description": "What the services of Countersign say to one another.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/cloudevents+json",
        "channels": channels,
        "operations": operations,
        "components": {
            "messages": {each.TYPE: _message(each) for each in MESSAGES.values()},
            "schemas": _schemas(docstrings),
        },
    }


def _ref(kind: str, message: type[Message]) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{message.TYPE}"}


def _in_channel(queue: topology.Queue, message: type[Message]) -> dict[str, str]:
    return {"$ref": f"#/channels/{queue.name}/messages/{message.TYPE}"}


def _message(message: type[Message]) -> dict[str, Any]:
    return {
        "name": message.event_type(),
        "summary": inspect.getdoc(message),
        "contentType": "application/cloudevents+json",
        "payload": {
            "type": "object",
            "required": ["specversion", "id", "source", "type", "time", "correlationid", "data"],
            "properties": {
                "specversion": {"const": "1.0"},
                "id": {"type": "string", "format": "uuid"},
                "source": {"const": sender_of(message)},
                "type": {"const": message.event_type()},
                "time": {"type": "string", "format": "date-time"},
                "datacontenttype": {"const": "application/json"},
                "correlationid": {"type": "string", "format": "uuid"},
                "causationid": {"type": "string", "format": "uuid"},
                "traceparent": {"type": "string"},
                "data": {"$ref": f"#/components/schemas/{message.__name__}"},
            },
        },
    }


def _schemas(docstrings: Docstrings) -> dict[str, Any]:
    models = list(MESSAGES.values())
    _, top = models_json_schema(
        [(model, "serialization") for model in models],
        ref_template="#/components/schemas/{model}",
    )
    schemas: dict[str, Any] = top["$defs"]
    for model in models:
        notes = docstrings(model)
        for name, field in schemas[model.__name__].get("properties", {}).items():
            # A reference's siblings are passed over by most readers.
            if name in notes and "$ref" not in field:
                field["description"] = notes[name]
    return schemas
