"""``countersign users``: who may sign."""

# ruff: noqa: PLC0415 - --help must answer at once

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from countersign.installation import DataOption, open_database
from message_contracts.case import Stage

if TYPE_CHECKING:
    from service_runtime.database import Database

app = typer.Typer(help="People who sign.", no_args_is_help=True)

Account = Annotated[str, typer.Argument(metavar="EMAIL", help="Whose account.")]
PasswordOption = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of stdin.")
]


@app.command()
def add(
    email: Annotated[str, typer.Argument(help="What the person logs in with.")],
    role: Annotated[Stage, typer.Option(help="What the person signs as.")],
    password_stdin: PasswordOption = False,  # noqa: FBT002 - a flag
    name: Annotated[
        str | None, typer.Option(help="As printed with a signature; else taken from the e-mail.")
    ] = None,
    data: DataOption = None,
) -> None:
    """Make an account. The password is asked for, or read from standard input."""
    password = _password(from_stdin=password_stdin)
    printed_name = name or email.partition("@")[0].replace(".", " ").replace("-", " ").title()
    with open_database(data) as database:
        add_user(database, email, role.value, printed_name, password)
    typer.echo(f"{email} may sign as {role.value}")


@app.command("list")
def list_users(data: DataOption = None) -> None:
    """Show every account."""
    from sqlalchemy import select

    from imaging_store.schema.administration import users

    with open_database(data) as database, database.reading() as connection:
        rows = connection.execute(select(users).order_by(users.c.email)).all()
    for row in rows:
        state = f"disabled {row.disabled_at:%Y-%m-%d}" if row.disabled_at else "enabled"
        typer.echo(f"{row.email}  {row.role}  {state}  {row.printed_name}")
    if not rows:
        typer.echo("no accounts; make one with `countersign users add`")


@app.command("set-password")
def set_password(
    email: Account,
    password_stdin: PasswordOption = False,  # noqa: FBT002 - a flag
    data: DataOption = None,
) -> None:
    """Give an account another password; it is open again, and its tokens are worth nothing."""
    from admin_api import users

    password = _password(from_stdin=password_stdin)
    with open_database(data) as database:
        users.set_password(database, email, password)
    typer.echo(f"{email} has a new password")


@app.command("set-role")
def set_role(
    email: Account,
    role: Annotated[Stage, typer.Option(help="What the person signs as from now on.")],
    data: DataOption = None,
) -> None:
    """Give an account another role; its tokens are worth nothing, its signatures stay."""
    from admin_api import users

    with open_database(data) as database:
        users.set_role(database, email, role.value)
    typer.echo(f"{email} may sign as {role.value}")


@app.command()
def disable(email: Account, data: DataOption = None) -> None:
    """Close an account: its tokens are worth nothing from now on, its signatures stay."""
    from datetime import UTC, datetime

    from admin_api import users

    with open_database(data) as database:
        users.disable(database, email, datetime.now(UTC))
    typer.echo(f"{email} can no longer log in")


def _password(*, from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    return str(typer.prompt("Password", hide_input=True, confirmation_prompt=True))


def add_user(database: "Database", email: str, role: str, printed_name: str, password: str) -> None:
    """Make an account, as ``users add`` and the demo do."""
    from datetime import UTC, datetime

    from admin_api import users

    users.add(database, email, role, printed_name, password, datetime.now(UTC))
