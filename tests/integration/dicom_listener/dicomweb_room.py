"""DICOMweb before a reading room, in the process of the test."""

from __future__ import annotations

from typing import Any, cast
from uuid import uuid4

from fastapi import FastAPI

from dicom_listener.dicomweb.app import make_app
from dicom_listener.dicomweb.installation import DicomWeb, reader
from dicom_listener.dicomweb.posting import CALLING_AE_TITLE, Posting, receptions
from dicom_listener.open_associations import open_for
from dicom_listener.sender import Sender
from imaging_store.accounts import Account
from tests.integration.dicom_listener.reading_room import SITE, ReadingRoom


def app_before(room: ReadingRoom, role: str = "admin") -> FastAPI:
    """Return the application; whoever asks has this role."""

    def post(study_instance_uid: str, boundary: str) -> Posting:
        association = open_for(CALLING_AE_TITLE)
        sender = Sender(SITE, "COUNTERSIGN", association)
        return Posting(
            receptions(room.keeper, sender, study_instance_uid),
            boundary,
            lambda: room.keeper.association_ended(association),
        )

    app = make_app(
        DicomWeb(
            database=room.database,
            store=room.store,
            authority=cast(Any, None),
            clock=room.now,
            post=post,
            longest_post_bytes=2**30,
        )
    )
    account = Account(uuid4(), role, None, 0)
    app.dependency_overrides[reader] = lambda: account
    return app
