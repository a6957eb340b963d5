"""Accounts, as every service reads them that answers people and programs over HTTP."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select

from imaging_store.schema.administration import users
from service_runtime.database import Database


@dataclass(frozen=True, slots=True)
class Account:
    """Who may do what; the secrets of an account are read by ``admin_api`` alone."""

    id: UUID
    role: str
    disabled_at: datetime | None
    token_generation: int


_COLUMNS = (users.c.id, users.c.role, users.c.disabled_at, users.c.token_generation)


def account_by_id(database: Database, user_id: UUID) -> Account | None:
    """Return an account as it is now."""
    with database.reading() as connection:
        row = connection.execute(select(*_COLUMNS).where(users.c.id == user_id)).first()
    return Account(*row) if row else None
