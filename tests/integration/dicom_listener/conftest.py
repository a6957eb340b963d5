from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.dicom_listener.listener import Listener


@pytest.fixture
def start_listener(tmp_path: Path, sqlite_url: str) -> Iterator[Callable[..., Listener]]:
    """Start a listener with settings of the test's own."""
    with ExitStack() as listeners:
        yield lambda **settings: listeners.enter_context(
            Listener(tmp_path / "data", sqlite_url, **settings)
        )


@pytest.fixture
def listener(start_listener: Callable[..., Listener]) -> Listener:
    """Start a listener with a short quiet period."""
    return start_listener()
