"""Metadata of instances: all that is in them but bulk data, as JSON (PS3.18 §10.4.1.1.2)."""

import json
import warnings
from collections.abc import Iterator, Sequence

import pydicom
import structlog

from dicom_listener.dicomweb import search_results
from dicom_listener.dicomweb.bulk_data import PIXEL_DATA, check_can_be_read, path_text
from dicom_listener.dicomweb.dicom_json import Json, attribute, dataset_json
from dicom_listener.dicomweb.retrieval import Instance, instance_url
from dicom_listener.sop_classes import BIG_ENDIAN
from imaging_store.instances import FileInstanceStore, NotInStore

_LOG = structlog.get_logger()


def metadata_of(
    store: FileInstanceStore, instances: Sequence[Instance], url: str
) -> Iterator[bytes]:
    """Yield a JSON array, an instance at a time; what has been purged meanwhile is left out."""
    separator = b"["
    for instance in instances:
        try:
            model = _model(store, instance, instance_url(url, instance))
        except NotInStore:
            continue
        yield separator + json.dumps(model, ensure_ascii=False, separators=(",", ":")).encode()
        separator = b","
    yield b"]" if separator == b"," else b"[]"


def _model(store: FileInstanceStore, instance: Instance, url: str) -> Json:
    try:
        check_can_be_read(store, instance)
        # pydicom warns with values of the data set, which belong in no log.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(store.path(instance.key), stop_before_pixels=True)
            model = dataset_json(
                dataset,
                lambda path: f"{url}/bulkdata/{path_text(path)}",
                is_big_endian=instance.transfer_syntax_uid in BIG_ENDIAN,
            )
    except NotInStore:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a malformed data set does to the parser
        _LOG.warning(
            "instance.not_parsed", sop_instance_uid=instance.sop_instance_uid, exc_info=error
        )
        return search_results.instance_json(instance, url)
    if "Rows" in dataset and "Columns" in dataset:
        vr = "OB" if dataset.get("BitsAllocated", 16) == 8 else "OW"  # noqa: PLR2004 - one byte
        uri = f"{url}/bulkdata/{path_text((PIXEL_DATA,))}"
        model[f"{PIXEL_DATA:08X}"] = {"vr": vr, "BulkDataURI": uri}
    model["00083002"] = attribute("UI", instance.transfer_syntax_uid)
    return dict(sorted(model.items()))
