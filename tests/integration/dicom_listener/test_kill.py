"""kill -9 of any process of the listener, at random moments: nothing answered for is lost."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.dicom_listener.kill_load import KillLoad
from tests.integration.dicom_listener.listener import Listener

SEED = os.environ["COUNTERSIGN_TEST_SEED"]
IN_A_SOAK = int(os.environ.get("COUNTERSIGN_SOAK_INSTANCES", "5000"))


def load_with_kills(listener: Listener, seed: str, count: int) -> KillLoad:
    load = KillLoad(listener, random.Random(seed), count)

    load.run()

    load.nothing_is_lost()
    load.every_version_is_announced_once()
    return load


@pytest.mark.slow
@pytest.mark.parametrize("round_", range(3))
def test_a_thousand_instances_and_every_version_survive_the_kills(
    start_listener: Callable[..., Listener], round_: int
) -> None:
    load = load_with_kills(start_listener(), f"{SEED}/{round_}", 1000)

    assert load.kills.total() >= 4
    assert min(load.kills["parent"], load.kills["child"]) >= 1


@pytest.mark.soak
@pytest.mark.parametrize("form", ["sqlite_url", "postgresql_database_url"])
@pytest.mark.parametrize("round_", range(10))
def test_many_thousand_instances_and_every_version_survive_the_kills(
    request: pytest.FixtureRequest, tmp_path: Path, form: str, round_: int
) -> None:
    began = time.monotonic()
    with Listener(tmp_path / "data", request.getfixturevalue(form)) as listener:
        load = load_with_kills(listener, f"{SEED}/{form}/{round_}", IN_A_SOAK)

    figures = {
        "soak": "kills while receiving",
        "form": form.partition("_")[0],
        "round": round_,
        "instances": load.count,
        "kills": dict(load.kills),
        "lost": 0,
        "seconds": round(time.monotonic() - began),
        "seed": SEED,
    }
    print("\n" + json.dumps(figures))  # noqa: T201 - the figures are what a soak is run for
