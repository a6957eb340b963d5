"""The generated pages say what the code says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from countersign import docs
from countersign.message_docs import CONSUMERS, asyncapi
from countersign.services import SERVICES
from countersign.up import UpSettings
from message_contracts.catalogue import MESSAGES
from message_contracts.ingest import StudyReceived, StudyUpdated


def test_a_field_is_described_by_what_stands_below_it() -> None:
    notes = docs.attribute_docstrings(StudyReceived)

    assert notes["study_instance_uid"] == "(0020,000D)."


def test_an_inherited_field_keeps_its_description() -> None:
    assert docs.attribute_docstrings(StudyUpdated)["study_version"].startswith("Counts from 1")


@pytest.mark.parametrize("message", MESSAGES.values(), ids=lambda message: message.TYPE)
def test_every_message_is_on_the_page(message: type) -> None:
    page = docs.pages()["messages.md"]

    assert f"## {message.TYPE}\n" in page
    assert all(f"| `{name}` |" in page for name in message.model_fields)


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    document = asyncapi(docs.attribute_docstrings)

    def references(node: object) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if "$ref" in node else []
            return own + [found for value in node.values() for found in references(value)]
        if isinstance(node, list):
            return [found for value in node for found in references(value)]
        return []

    found = references(document)
    assert found
    for reference in found:
        node = document
        for part in reference.removeprefix("#/").split("/"):
            node = node[part]


def test_every_consumer_of_the_asyncapi_document_is_a_service() -> None:
    assert set(CONSUMERS.values()) <= set(SERVICES)


def test_every_setting_has_a_meaning() -> None:
    rows = [line for line in docs.settings_page().splitlines() if line.startswith("| `")]

    meaningless = [row for row in rows if not row.split(" | ")[3].strip()]

    assert len(rows) > 20
    assert meaningless == []


def test_what_up_takes_has_the_services_own_defaults() -> None:
    page = docs.settings_page()

    for name in UpSettings.__annotations__:
        default = UpSettings.model_fields[name].default
        [row] = [line for line in page.splitlines() if f"`COUNTERSIGN_{name.upper()}`" in line]
        assert f"`{default}`" in row


def test_a_stale_page_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert docs.main([str(tmp_path)]) == 0
    assert docs.main(["--check", str(tmp_path)]) == 0
    (tmp_path / "messages.md").write_text("old")

    assert docs.main(["--check", str(tmp_path)]) == 1
    assert "messages.md is out of date" in capsys.readouterr().err
    assert json.loads((tmp_path / "asyncapi.json").read_text())["asyncapi"] == "3.0.0"
