"""What a URL names: a study, series or instance, as far as it is offered to who asks."""

from collections.abc import Sequence
from dataclasses import dataclass
from secrets import token_hex
from typing import Annotated

from fastapi import Depends, Request

from dicom_listener.dicomweb.installation import Reader, Web, base_url
from dicom_listener.dicomweb.media_types import MediaType, acceptable
from dicom_listener.dicomweb.retrieval import Instance, require_instances
from imaging_store.instances import FileInstanceStore

STUDY = "/studies/{study}"
SERIES = STUDY + "/series/{series}"
INSTANCE = SERIES + "/instances/{instance}"

_COLUMNS = {
    "study": "study_instance_uid",
    "series": "series_instance_uid",
    "instance": "sop_instance_uid",
}


@dataclass(frozen=True)
class Resource:
    """Instances that were found, and how the request wants them."""

    instances: Sequence[Instance]
    is_one: bool
    """The URL names one instance."""
    store: FileInstanceStore
    url: str
    """Of the service."""
    accepted: Sequence[MediaType]
    boundary: str
    """For an answer that has parts."""

    @property
    def instance(self) -> Instance:
        """The one that the URL names."""
        return self.instances[0]


def resource_of(request: Request, user: Reader, web: Web) -> Resource:
    """Return what the URL names.

    Raises
    ------
    Problem
        404 where it is not offered, 410 where it was purged.
    """
    uids = {
        column: request.path_params[name]
        for name, column in _COLUMNS.items()
        if name in request.path_params
    }
    # Viewers that cannot set headers name media types in the query (PS3.18 §8.3.3.1).
    fields = request.query_params.getlist("accept") or request.headers.getlist("accept")
    return Resource(
        require_instances(web.database, user.role, **uids),
        "instance" in request.path_params,
        web.store,
        base_url(request),
        acceptable(fields),
        token_hex(16),
    )


Found = Annotated[Resource, Depends(resource_of)]
