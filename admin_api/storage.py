"""How full the store is, and what may be let go of: for those who watch an installation."""

from datetime import datetime

from fastapi import APIRouter
from pydantic import BaseModel

from admin_api.identity import SignedInAdmin
from admin_api.installation import ApiDependency
from imaging_store.holdings import Amount, holdings

router = APIRouter(tags=["operations"])


class Counted(BaseModel):
    """So many instances, and the bytes of their data sets."""

    instances: int
    size_bytes: int

    @staticmethod
    def of(amount: Amount) -> "Counted":
        """Return an amount as it is shown."""
        return Counted(instances=amount.instances, size_bytes=amount.size_bytes)


class StorageReport(BaseModel):
    """What is kept, where room runs short, and what may be let go of."""

    free_bytes: int
    total_bytes: int
    reserve_bytes: int
    """Less free than this: instances are refused with A700."""
    watermark_bytes: int
    """Less free than this: ended cases are purged before their time."""
    retention_days: float | None
    """From the end of a case to its purge; null: instances are kept for ever."""
    kept: Counted
    oldest_received_at: datetime | None
    purged: Counted
    committed_instances: int
    purgeable: Counted
    """Now, because they were kept long enough."""
    next_due_at: datetime | None


@router.get("/storage")
def read_storage(api: ApiDependency, _user: SignedInAdmin) -> StorageReport:
    """Read how full the store is. Every row of the index is counted."""
    retention, room = api.retention, api.room()
    with api.database.reading() as connection:
        found = holdings(connection, retention, api.clock())
    return StorageReport(
        free_bytes=room.free_bytes,
        total_bytes=room.total_bytes,
        reserve_bytes=retention.reserve_bytes,
        watermark_bytes=retention.watermark_bytes,
        retention_days=retention.days,
        kept=Counted.of(found.kept),
        oldest_received_at=found.oldest_received_at,
        purged=Counted.of(found.purged),
        committed_instances=found.committed_instances,
        purgeable=Counted.of(found.purgeable),
        next_due_at=found.next_due_at,
    )
