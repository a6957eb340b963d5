from __future__ import annotations

import json
from typing import Any

import pytest

from message_contracts.inference import InferenceCompleted
from tests.conftest import CHECKOUT
from workflow_engine.findings import Reading, findings_digest
from workflow_engine.signing import digest

GOLDEN = CHECKOUT / "tests" / "golden" / "messages" / "inference.completed.v1.json"


@pytest.mark.parametrize("added_later", [(), ("not_read", "given"), ("heatmap_frame_number",)])
def test_the_digest_is_over_what_was_kept_whatever_later_releases_add(
    added_later: tuple[str, ...],
) -> None:
    kept: dict[str, Any] = json.loads(GOLDEN.read_bytes())["data"]
    for name in added_later:
        del kept[name]
    reading = Reading("chest", "1.0.0", InferenceCompleted.model_validate(kept), None)

    found = findings_digest([reading])

    told = {"model_name": "chest", "model_version": "1.0.0", "completed": kept, "failure": None}
    assert found == digest([told])


def test_a_refusal_is_signed_as_one() -> None:
    failed = Reading("chest", "1.0.0", None, "Not a chest.")
    refused = Reading("chest", "1.0.0", None, "Not a chest.", refused=True)

    assert findings_digest([failed]) != findings_digest([refused])
