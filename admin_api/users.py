"""Accounts: who may sign, as what. The one writer of the table ``users``."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from admin_api import passwords
from imaging_store.schema.administration import users
from message_contracts.case import Stage
from service_runtime.database import Database
from service_runtime.errors import PermanentError

_EMAIL = re.compile(r"[^@\s\x00-\x1f]{1,64}@[^@\s\x00-\x1f]{1,189}")
_LONGEST_NAME = 200


class InvalidAccount(PermanentError):
    """A field of an account cannot be taken; the reason names it and quotes nothing."""


class AccountExists(PermanentError):
    """Somebody has this e-mail address already."""


class NoSuchAccount(PermanentError):
    """Nobody has this e-mail address."""


class AccountShut(PermanentError):
    """Too many wrong passwords keep the account shut for now."""

    def __init__(self, until: datetime) -> None:
        super().__init__("too many wrong passwords: the account is shut for now")
        self.until = until


class AccountChanged(PermanentError):
    """Password, role or closing: the account is not the one whose password was checked."""


@dataclass(frozen=True)
class User:
    """An account."""

    id: UUID
    email: str
    printed_name: str
    role: str
    password_hash: str
    disabled_at: datetime | None
    token_generation: int
    failed_attempts: int
    locked_until: datetime | None


def add(
    database: Database, email: str, role: str, printed_name: str, password: str, now: datetime
) -> UUID:
    """Make an account.

    Raises
    ------
    InvalidAccount
        A field cannot be taken.
    AccountExists
        The e-mail address is taken; nothing was changed.
    """
    row = {
        "id": uuid4(),
        "email": _email(email),
        "printed_name": _printed_name(printed_name),
        "role": _role(role),
        "password_hash": passwords.hashed(_password(password)),
        "created_at": now,
        "token_generation": 0,
        "failed_attempts": 0,
    }
    try:
        with database.transaction() as transaction:
            transaction.connection.execute(insert(users), row)
    except IntegrityError:
        raise AccountExists("email: there is an account of this address already") from None
    return UUID(str(row["id"]))


def disable(database: Database, email: str, now: datetime) -> None:
    """Shut an account for good. Its tokens are worth nothing from now on; its signatures stay.

    Raises
    ------
    NoSuchAccount
        Nobody has this address.
    """
    _change(database, email, {"disabled_at": now})


def set_role(database: Database, email: str, role: str) -> None:
    """Give an account another role; its tokens are worth nothing from now on.

    Raises
    ------
    NoSuchAccount, InvalidAccount
        Nobody has this address; there is no such role.
    """
    _change(database, email, {"role": _role(role)})


def set_password(database: Database, email: str, password: str) -> None:
    """Give an account another password, and open it; its tokens are worth nothing from now on.

    Raises
    ------
    NoSuchAccount, InvalidAccount
        Nobody has this address; the password is too short.
    """
    _change(
        database,
        email,
        {
            "password_hash": passwords.hashed(_password(password)),
            "failed_attempts": 0,
            "locked_until": None,
        },
    )


def by_email(database: Database, email: str) -> User | None:
    """Return the account of an e-mail address, in whichever case it is written."""
    with database.reading() as connection:
        row = connection.execute(
            select(users).where(users.c.email == email.strip().lower())
        ).one_or_none()
    return None if row is None else _user(row)


def by_id(database: Database, user_id: UUID) -> User | None:
    """Return an account."""
    with database.reading() as connection:
        row = connection.execute(select(users).where(users.c.id == user_id)).one_or_none()
    return None if row is None else _user(row)


def note_attempt(database: Database, user: User | None, *, right: bool, now: datetime) -> None:
    """Count a wrong password, or forget those before a right one.

    What the account is now decides, and requests at once wait for each other: of many guesses sent
    together no more count than of guesses sent one by one. Without a user it only takes as long:
    an answer's time must not tell who has an account.

    Raises
    ------
    AccountShut
        The password counts for nothing, right or wrong, and is not counted.
    AccountChanged
        The account has changed since ``user`` was read.
    """
    of_user = users.c.id == (user.id if user else None)
    with database.transaction() as transaction:
        row = transaction.connection.execute(
            select(users).where(of_user).with_for_update()
        ).one_or_none()
        current = None if row is None else _user(row)
        if user and (current is None or current.token_generation != user.token_generation):
            raise AccountChanged("the account has changed")
        if current and current.locked_until and now < current.locked_until:
            raise AccountShut(current.locked_until)
        failed = current.failed_attempts if current else 0
        if right and not failed:
            return
        counted = 0 if right else failed + 1
        lock_time = passwords.lock_time(counted)
        transaction.connection.execute(
            update(users)
            .where(of_user)
            .values(failed_attempts=counted, locked_until=now + lock_time if lock_time else None)
        )


def _change(database: Database, email: str, values: dict[str, Any]) -> None:
    with database.transaction() as transaction:
        changed = transaction.connection.execute(
            update(users)
            .where(users.c.email == email.strip().lower())
            .values(token_generation=users.c.token_generation + 1, **values)
        )
        if changed.rowcount != 1:
            raise NoSuchAccount("email: there is no account of this address")


def _user(row: Row[Any]) -> User:
    return User(
        id=row.id,
        email=row.email,
        printed_name=row.printed_name,
        role=row.role,
        password_hash=row.password_hash,
        disabled_at=row.disabled_at,
        token_generation=row.token_generation,
        failed_attempts=row.failed_attempts,
        locked_until=row.locked_until,
    )


def _email(email: str) -> str:
    plain = email.strip().lower()
    if not _EMAIL.fullmatch(plain):
        raise InvalidAccount("email: not an e-mail address")
    return plain


def _role(role: str) -> str:
    if role not in set(Stage):
        raise InvalidAccount(f"role: one of {', '.join(Stage)}")
    return role


def _printed_name(name: str) -> str:
    plain = " ".join(name.split())
    if not plain or len(plain) > _LONGEST_NAME or not plain.isprintable():
        raise InvalidAccount(f"name: 1 to {_LONGEST_NAME} printable characters")
    return plain


def _password(password: str) -> str:
    if not passwords.MINIMUM_LENGTH <= len(password) <= passwords.MAXIMUM_LENGTH:
        raise InvalidAccount(
            f"password: {passwords.MINIMUM_LENGTH} to {passwords.MAXIMUM_LENGTH} characters"
        )
    return password
