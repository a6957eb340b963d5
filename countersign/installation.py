"""Which installation a command acts on: the settings of the environment, or one data folder."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typing_extensions import override

from service_runtime.errors import CountersignError

if TYPE_CHECKING:
    from service_runtime.database import Database

DATA_DIR = "COUNTERSIGN_DATA_DIR"

DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="DIR",
        help="Folder of the embedded form's data; without it COUNTERSIGN_* decides.",
        file_okay=False,
    ),
]


class NoDatabase(CountersignError):
    """There is no installation where the command looks for one."""


class PlainErrors(typer.core.TyperGroup):
    """Tells what we foresaw in a line, and leaves the traceback to what we did not."""

    @override
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except CountersignError as error:
            sys.stderr.write(f"{error}\n")
            raise typer.Exit(1) from None


def use(data: Path | None) -> None:
    """Make ``--data`` the data folder, as ``COUNTERSIGN_DATA_DIR`` would."""
    if data is not None:
        os.environ[DATA_DIR] = str(data.expanduser().absolute())


@contextmanager
def open_database(data: Path | None) -> Iterator["Database"]:
    """Open the installation's database.

    Raises
    ------
    NoDatabase
        It is SQLite, and there is no such file: opening it would make an empty one.
    """
    # Loaded by the commands that need a database, because --help must answer at once.
    from service_runtime.database import Database  # noqa: PLC0415
    from service_runtime.settings import BrokerSettings, load  # noqa: PLC0415

    use(data)
    settings = load(BrokerSettings)
    if settings.database.startswith("sqlite"):
        file = Path(settings.database.removeprefix("sqlite:///"))
        if not file.exists():
            raise NoDatabase(
                f"there is no installation in {settings.data_dir}: name its folder with --data, "
                f"or make one with `countersign up` or `countersign db upgrade`"
            )
    database = Database(settings.database, via_relay=settings.via_broker)
    try:
        yield database
    finally:
        database.close()
