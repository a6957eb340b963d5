import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from imaging_store.instances import FileInstanceStore
from service_runtime.database import Database
from tests.integration.dicom_listener.dicomweb_process import DicomWebProcess, post
from tests.integration.dicom_listener.dicomweb_studies import PIXELS, file_of, slices
from tests.integration.dicom_listener.kept_studies import KeptStudies
from tests.integration.dicom_listener.listener import Listener
from tests.integration.dicom_listener.reading_room import ReadingRoom


@pytest.fixture(params=["sqlite_url", "postgresql_database_url"])
def database(request: pytest.FixtureRequest) -> Iterator[Database]:
    """Open either database."""
    opened = Database(request.getfixturevalue(request.param))
    yield opened
    opened.close()


@pytest.fixture
def database_in_sqlite(sqlite_url: str) -> Iterator[Database]:
    """Open the one database where both do the same."""
    opened = Database(sqlite_url)
    yield opened
    opened.close()


@pytest.fixture
def room(database: Database, tmp_path: Path) -> ReadingRoom:
    """Open a reading room on either database."""
    return ReadingRoom(database, tmp_path / "store")


@pytest.fixture
def room_in_sqlite(database_in_sqlite: Database, tmp_path: Path) -> ReadingRoom:
    """Open a reading room where both databases do the same."""
    return ReadingRoom(database_in_sqlite, tmp_path / "store")


@pytest.fixture
def kept(database: Database, tmp_path: Path) -> KeptStudies:
    """Give studies, none yet, on either database."""
    return KeptStudies(database, FileInstanceStore(tmp_path / "store"))


@pytest.fixture
def kept_in_sqlite(database_in_sqlite: Database, tmp_path: Path) -> KeptStudies:
    """Give studies where both databases do the same."""
    return KeptStudies(database_in_sqlite, FileInstanceStore(tmp_path / "store"))


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


@pytest.fixture
def start_dicomweb(tmp_path: Path, sqlite_url: str) -> Iterator[Callable[..., DicomWebProcess]]:
    """Start DICOMweb with settings of the test's own."""
    with ExitStack() as processes:
        yield lambda **settings: processes.enter_context(
            DicomWebProcess(settings.pop("folder", tmp_path / "data"), sqlite_url, **settings)
        )


@pytest.fixture(scope="module", params=["sqlite_template", "postgresql_template"])
def shared_dicomweb(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DicomWebProcess]:
    """Start DICOMweb for all tests of a module, on either database."""
    template = request.getfixturevalue(request.param)
    folder = tmp_path_factory.mktemp("dicomweb")
    if isinstance(template, Path):
        shutil.copyfile(template, folder / "countersign.sqlite3")
        url = f"sqlite:///{folder / 'countersign.sqlite3'}"
    else:
        url = request.getfixturevalue("postgresql").create_database(template)
    with DicomWebProcess(folder, url) as process:
        yield process


@pytest.fixture(scope="module")
def dicomweb(shared_dicomweb: DicomWebProcess) -> DicomWebProcess:
    """Give that process with three studies."""
    with shared_dicomweb.client() as admin:
        files = []
        for ds in slices():
            ds.PixelData = PIXELS
            files.append(file_of(ds))
        assert post(admin, *files).status_code == 200
    return shared_dicomweb


@pytest.fixture(scope="module")
def doctor(dicomweb: DicomWebProcess) -> httpx.Client:
    """Log a doctor in."""
    return dicomweb.client("doctor")
