"""A worker as it runs, with a store, a database and studies to read, for `bench.inference`."""

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any, Self
from uuid import uuid4
from zoneinfo import ZoneInfo

import numpy as np
from pydicom.uid import Comprehensive3DSRStorage
from sqlalchemy import func, select

from imaging_store.instances import open_instance_store
from imaging_store.migrations import upgrade
from imaging_store.schema.ingest import instance, study
from imaging_store.schema.results import result_object
from inference_worker import (
    decoding,
    handlers,
    kept_instances,
    results,
    secondary_capture,
    structured_report,
)
from inference_worker.__main__ import LOOK_S
from inference_worker.forward_process import USUAL_LIMITS
from inference_worker.handlers import Worker
from inference_worker.model_folder import ModelFolder
from inference_worker.results import LoadedModel
from inference_worker.served_model import ServedModel
from inference_worker.study_reading import Predict
from message_contracts.envelope import Envelope
from message_contracts.inference import InferenceRequested, ModelReference
from message_contracts.study_selection import Reads, StudySelection
from message_contracts.topology import INFERENCE_ROUTINE, INFERENCE_URGENT
from service_runtime.database import Database
from service_runtime.messaging import outbox
from service_runtime.messaging.at_once import AtOnce
from service_runtime.messaging.consumer import Handling
from service_runtime.messaging.forms import Messaging
from service_runtime.settings import EMBEDDED
from tests.synthetic_images import an_image, part10

SLICE_SIDE, RADIOGRAPH_SIDE = 512, 2048
SERIES = ModelReference(name="series", version="1.0.0")
VIEWS = ModelReference(name="views", version="1.0.0")
AT_ONCE = AtOnce(5, of_later_queues=4)
PATIENT_S = 3600
_TICK_HZ = os.sysconf("SC_CLK_TCK")
_VARIANTS = 8


class Ward:
    """A running worker. Its model is shared by two descriptions: one reads slices, one views."""

    def __init__(self, folder: ModelFolder, data_dir: Path) -> None:
        self.folder = folder
        self._data_dir = data_dir
        self._stack = ExitStack()
        self._studies: dict[str, list[tuple[str, list[str]]]] = {}
        self._case_version = 0

    def __enter__(self) -> Self:
        database_url = f"sqlite:///{self._data_dir / 'countersign.sqlite3'}"
        upgrade(database_url)
        self._database = Database(database_url)
        self._stack.callback(self._database.close)
        self._store = open_instance_store(f"file:{self._data_dir / 'store'}")
        self._served = ServedModel(self._opened, USUAL_LIMITS)
        self._stack.callback(self._served.close)
        worker = Worker(
            database=self._database,
            store=self._store,
            models=_Held(self._served, self.folder),
            time_zone=ZoneInfo("UTC"),
            now=lambda: datetime.now(UTC),
        )
        handling = Handling(worker.on_inference_requested, on_exhausted=worker.on_exhausted)
        messaging = self._stack.enter_context(Messaging(self._database, EMBEDDED, "bench"))
        stop = threading.Event()
        consuming = threading.Thread(
            target=messaging.consume,
            args=({INFERENCE_URGENT: handling, INFERENCE_ROUTINE: handling}, stop),
            kwargs={"at_once": AT_ONCE, "look_s": LOOK_S},
        )
        consuming.start()
        self._stack.callback(consuming.join)
        self._stack.callback(stop.set)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @contextmanager
    def _opened(self) -> Iterator[ModelFolder]:
        yield self.folder

    def keep_series(self, count: int, slices: int) -> None:
        """Keep so many series of 512 x 512 slices, signed and windowed as a CT's are."""
        self._studies["series"] = self._keep("series", count, slices, SLICE_SIDE)

    def read_series(self) -> float:
        """Read all series once; return images/s."""
        series = self._studies["series"]
        return sum(len(uids) for _, uids in series) / self._read(SERIES, series)

    def core_ms_of_one_image_studies(self, count: int) -> dict[str, Any]:
        """Return what a study of one image costs, by what is done, for two sizes of image."""
        of_slice = self._core_ms("slice", count, SLICE_SIDE)
        of_radiograph = self._core_ms("radiograph", max(count // 4, 4), RADIOGRAPH_SIDE)
        return of_slice | {"of_2048_x_2048": of_radiograph}

    def _core_ms(self, name: str, count: int, side: int) -> dict[str, float]:
        studies = self._keep(name, count, 1, side)
        self._read(VIEWS, studies[: max(count // 4, 1)])
        with _timed() as spent_s:
            model_s, process_s = self._model_cpu_s(), _worker_cpu_s()
            self._read(VIEWS, studies)
            spent_s["graph"] = self._model_cpu_s() - model_s
            known_s = sum(spent_s.values()) - spent_s["graph"]
            spent_s["commit_and_rest"] = _worker_cpu_s() - process_s - known_s
        found = {what: round(1000 * each / count, 2) for what, each in spent_s.items()}
        others = [each for what, each in found.items() if what not in {"decode", "graph"}]
        return found | {"all_but_decode_graph": round(sum(others), 2)}

    def _model_cpu_s(self) -> float:
        process = self._served.process_id
        fields = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2]
        user, system = fields.split()[11:13]
        return (int(user) + int(system)) / _TICK_HZ

    def _keep(self, name: str, count: int, images: int, side: int) -> list[tuple[str, list[str]]]:
        contents = [_drawn(side, number) for number in range(_VARIANTS)]
        kept = []
        with self._database.transaction() as transaction:
            for number in range(count):
                study_uid = f"2.25.{abs(hash((name, number)))}"
                transaction.connection.execute(
                    study.insert(), _filled(study, {"study_instance_uid": study_uid})
                )
                uids = [f"{study_uid}.1.{place + 1}" for place in range(images)]
                for place, uid in enumerate(uids):
                    dataset = contents[place % _VARIANTS]
                    dataset.StudyInstanceUID = study_uid
                    dataset.SeriesInstanceUID = f"{study_uid}.1"
                    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
                    key = f"instances/{uid}.dcm"
                    file = self._store.path(key)
                    file.parent.mkdir(exist_ok=True)
                    file.write_bytes(part10(dataset))
                    row = {
                        "sop_instance_uid": uid,
                        "series_instance_uid": f"{study_uid}.1",
                        "study_instance_uid": study_uid,
                        "instance_number": place + 1,
                        "key": key,
                        "size_bytes": file.stat().st_size,
                    }
                    transaction.connection.execute(instance.insert(), _filled(instance, row))
                kept.append((study_uid, uids))
        return kept

    def _read(self, model: ModelReference, studies: Sequence[tuple[str, list[str]]]) -> float:
        """Have every study read, and return how long it took until all answers were durable."""
        self._case_version += 1
        began_s = time.perf_counter()
        with self._database.transaction() as transaction:
            for study_uid, uids in studies:
                request = InferenceRequested(
                    case_id=uuid4(),
                    case_version=self._case_version,
                    study_instance_uid=study_uid,
                    model=model,
                    sop_instance_uids=tuple(uids),
                )
                sent = Envelope.of(request, source="bench", time=datetime.now(UTC))
                outbox.send(transaction, sent)
        reports = select(func.count()).where(
            result_object.c.case_version == self._case_version,
            result_object.c.sop_class_uid == Comprehensive3DSRStorage,
        )
        while True:
            with self._database.reading() as connection:
                if connection.execute(reports).scalar() == len(studies):
                    return time.perf_counter() - began_s
            if time.perf_counter() - began_s > PATIENT_S:
                raise TimeoutError("the worker has not read the studies; see its log")
            time.sleep(0.02)


class _Held:
    """Gives the same model under two descriptions."""

    def __init__(self, served: ServedModel, folder: ModelFolder) -> None:
        described = folder.description
        slices = StudySelection(what=Reads.SLICES)
        self._models = {
            reference: LoadedModel(
                described.model_copy(update={"name": reference.name, "reads": reads}),
                folder.weights_sha256,
                served.predict,
                lambda uid, urgent: _never_refusing(served.reader(uid, urgent)),
            )
            for reference, reads in ((SERIES, slices), (VIEWS, StudySelection()))
        }

    def of(self, reference: ModelReference) -> LoadedModel:
        return self._models[reference]


def _never_refusing(predict: Predict) -> Predict:
    """Drawn pictures are in no model's domain; to look costs the same."""
    return lambda batch: [
        replace(each, refusal=None)  # type: ignore[type-var]
        for each in predict(batch)
    ]


def _drawn(side: int, number: int) -> Any:
    random = np.random.default_rng(number)
    down, right = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    body = 900 * (np.hypot(down, 1.2 * right) < 0.9) + 200 * np.sin(9 * down + number)
    noise = random.normal(0, 25, (side, side))
    stored = np.clip(body + noise, -1024, 3071).astype("i2")
    return an_image(stored, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=0, WindowWidth=900)


def _filled(table: Any, row: dict[str, Any]) -> dict[str, Any]:
    needed = {
        column.name: ""
        for column in table.c
        if not column.nullable and column.server_default is None
    }
    usual: dict[str, Any] = {
        **dict.fromkeys(("opened_at", "received_at"), datetime.now(UTC)),
        **dict.fromkeys(("version", "study_version", "number_of_frames"), 1),
        "makes_version": True,
        "image_type": [],
    }
    return needed | {name: each for name, each in usual.items() if name in needed} | row


def _worker_cpu_s() -> float:
    """Return the CPU time of this process less that of this thread, which sends and counts."""
    return time.process_time() - time.thread_time()


@contextmanager
def _timed() -> Iterator[dict[str, float]]:
    """Count the CPU time of what a worker does, in whichever thread it does it."""
    spent_s: dict[str, float] = dict.fromkeys(
        ("read", "decode", "preprocess", "graph", "sc", "sr"), 0.0
    )
    lock = threading.Lock()

    def timed(run: Callable[..., Any], what: Callable[..., str]) -> Callable[..., Any]:
        @wraps(run)
        def timing(*args: Any, **kwargs: Any) -> Any:
            began_s = time.thread_time()
            try:
                return run(*args, **kwargs)
            finally:
                with lock:
                    spent_s[what(*args)] += time.thread_time() - began_s

        return timing

    places: list[tuple[Any, str, Callable[..., str]]] = [
        (kept_instances, "_content", lambda *_: "read"),
        (decoding, "parse", lambda *_: "decode"),
        (decoding, "render", lambda *_: "decode"),
        (decoding, "quality_fault", lambda *_: "preprocess"),
        (decoding, "to_network_geometry", lambda *_: "preprocess"),
        (results, "parse", lambda *_: "decode"),
        (results, "render", lambda *_: "decode"),
        (results, "draw_heatmap", lambda *_: "sc"),
        (secondary_capture, "make", lambda *_: "sc"),
        (structured_report, "make", lambda *_: "sr"),
        (handlers, "heatmap_png", lambda *_: "sc"),
        (handlers, "source_png", lambda *_: "sc"),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, what in places:
        setattr(owner, name, timed(getattr(owner, name), what))
    try:
        yield spent_s
    finally:
        for owner, name, original in before:
            setattr(owner, name, original)
