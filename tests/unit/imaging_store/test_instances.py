import errno
import hashlib
import io
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from imaging_store import block_writing, durable_files, instances
from imaging_store.block_writing import BLOCK_BYTES
from imaging_store.instances import (
    DigestClash,
    FileInstanceStore,
    FileSink,
    InvalidKey,
    NotInStore,
    StorageFull,
    UnsupportedStoreUrl,
    instance_key,
    is_intact,
    open_instance_store,
)


@pytest.fixture
def store(tmp_path: Path) -> FileInstanceStore:
    return FileInstanceStore(tmp_path / "store")


def incoming(store: FileInstanceStore) -> list[Path]:
    return list((store.root / "incoming").iterdir())


def test_what_was_committed_is_read_back(store: FileInstanceStore) -> None:
    sink = store.open_write(b"preamble")
    sink.write(b"data ")
    sink.write(memoryview(b"set"))

    kept = sink.commit("instances/a/b.dcm")

    assert store.read("instances/a/b.dcm") == b"preambledata set"
    assert kept.size_bytes == len(b"data set")
    assert kept.digest == xxhash.xxh3_128_hexdigest(b"data set")
    assert incoming(store) == []


def keep(store: FileInstanceStore, key: str, data: bytes, preamble: bytes = b"") -> None:
    with store.open_write(preamble) as sink:
        sink.write(data)
        sink.commit(key)


def test_the_same_again_is_kept_once_whoever_sends_it(store: FileInstanceStore) -> None:
    keep(store, "instances/a/b.dcm", b"data set", b"of one")

    keep(store, "instances/a/b.dcm", b"data set", b"of another, with a longer name")

    assert store.read("instances/a/b.dcm") == b"of onedata set"


@pytest.mark.parametrize("there", [b"date set", b"data", b"", b"data set, and more"])
def test_other_bytes_under_the_same_name_are_never_taken_for_the_same(
    store: FileInstanceStore, there: bytes
) -> None:
    keep(store, "instances/a/b.dcm", there)

    with pytest.raises(DigestClash):
        keep(store, "instances/a/b.dcm", b"data set")

    assert store.read("instances/a/b.dcm") == there
    assert incoming(store) == []


def test_nothing_is_visible_before_the_commit(store: FileInstanceStore) -> None:
    sink = store.open_write()

    sink.write(b"data set")

    assert not store.exists("instances/a/b.dcm")
    assert sink.flush_to().read_bytes() == b"data set"


def test_an_aborted_instance_leaves_nothing(store: FileInstanceStore) -> None:
    sink = store.open_write(b"preamble")
    sink.write(b"data")

    sink.abort()

    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_abort_after_commit_leaves_what_was_committed(store: FileInstanceStore) -> None:
    with store.open_write() as sink:
        sink.write(b"data")
        sink.commit("a/b")

    assert store.read("a/b") == b"data"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize(
    ("size_bytes", "finish"),
    [
        (BLOCK_BYTES, lambda _: None),
        (1, FileSink.flush_to),
        (1, lambda sink: sink.commit("instances/study/one.dcm")),
    ],
    ids=["a block", "flushing", "committing"],
)
def test_no_room_while_writing_is_storage_full(
    store: FileInstanceStore,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    size_bytes: int,
    finish: Callable[[FileSink], object],
) -> None:
    sink = store.open_write()

    def write(_descriptor: int, _pieces: object, _offset: int) -> int:
        raise OSError(code, "no room")

    monkeypatch.setattr(block_writing.Ring, "kernel_io", None)
    monkeypatch.setattr(os, "pwrite", write)

    with pytest.raises(StorageFull):  # noqa: PT012 - whichever of the two writes
        sink.write(bytes(size_bytes))
        finish(sink)
    sink.abort()
    assert incoming(store) == []


def test_no_room_while_committing_leaves_nothing(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = store.open_write()
    sink.write(b"data")

    def fsync(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(os, "fsync", fsync)

    with pytest.raises(StorageFull):
        sink.commit("a/b")
    assert incoming(store) == []
    assert not store.exists("a/b")


def test_the_reserve_is_kept_free(tmp_path: Path) -> None:
    store = FileInstanceStore(tmp_path, reserve_bytes=2**62)

    with pytest.raises(StorageFull):
        store.open_write()


def test_an_artifact_put_again_is_replaced(store: FileInstanceStore) -> None:
    store.put_artifact("cases/1/heatmap.png", b"first")

    store.put_artifact("cases/1/heatmap.png", b"second")

    assert store.read("cases/1/heatmap.png") == b"second"
    assert incoming(store) == []


def test_artifacts_kept_together_are_seen_once_all_are_durable_and_sync_their_directory_once(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        synced = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append((synced.parent.name, any(store.exists(key) for key in contents)))

    contents = {"a/b/SC.dcm": b"capture", "a/b/SR.dcm": b"report", "a/b/map.png": bytes(10**6)}
    monkeypatch.setattr(os, "fsync", fsync)

    store.put_artifacts(contents)

    assert {key: store.read(key) for key in contents} == contents
    assert [is_seen for folder, is_seen in seen if folder == "incoming"] == [False] * 3
    assert [is_seen for folder, is_seen in seen if folder == "a"] == [True]
    assert incoming(store) == []


def test_where_one_of_several_artifacts_has_no_room_none_is_kept(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_artifact("a/SC.dcm", b"first")
    synced = iter([None, OSError(errno.ENOSPC, "no room")])

    def fsync(_descriptor: int) -> None:
        if error := next(synced):
            raise error

    monkeypatch.setattr(os, "fsync", fsync)

    with pytest.raises(StorageFull):
        store.put_artifacts({"a/SC.dcm": b"second", "a/SR.dcm": b"report"})

    assert store.read("a/SC.dcm") == b"first"
    assert not store.exists("a/SR.dcm")
    assert incoming(store) == []


def test_what_is_not_kept_is_said_to_be_missing(store: FileInstanceStore) -> None:
    with pytest.raises(NotInStore):
        store.open("a/b")
    assert not store.exists("a/b")


@pytest.mark.parametrize(
    "key", ["", "/etc/passwd", "../up", "a/../b", "a//b", "incoming/x", "a/", ".hidden", "a\0b"]
)
def test_a_key_does_not_leave_the_store(store: FileInstanceStore, key: str) -> None:
    with pytest.raises(InvalidKey):
        store.put_artifact(key, b"data")
    with pytest.raises(InvalidKey):
        store.path(key)


@given(study=st.text(max_size=80), instance=st.text(max_size=80))
def test_any_uid_makes_a_key_that_is_valid(study: str, instance: str) -> None:
    digest = hashlib.sha256(b"x").hexdigest()

    key = instance_key(study, instance, digest)

    assert instances._checked(key) == key
    assert len(key) <= 255


def test_other_bytes_have_another_key() -> None:
    first = instance_key("1.2", "1.2.3", "a" * 64)

    assert instance_key("1.2", "1.2.3", "b" * 64) != first
    assert instance_key("1.2", "1.2.3", "a" * 64) == first


def test_what_a_dead_process_left_is_discarded(store: FileInstanceStore) -> None:
    (store.root / "incoming" / "left-over").write_bytes(b"half")

    assert store.discard_unfinished() == 1

    assert incoming(store) == []


def test_the_same_key_again_leaves_the_first_bytes(store: FileInstanceStore) -> None:
    for preamble in (b"one transfer syntax ", b"another "):
        with store.open_write(preamble) as sink:
            sink.write(b"data set")
            sink.commit("instances/a/b.dcm")

    assert store.read("instances/a/b.dcm") == b"one transfer syntax data set"


def test_a_directory_that_was_removed_is_made_again(store: FileInstanceStore) -> None:
    store.put_artifact("a/b/c", b"first")
    store.path("a/b/c").unlink()
    store.path("a/b").rmdir()

    store.put_artifact("a/b/c", b"second")

    assert store.read("a/b/c") == b"second"


def test_a_thread_that_has_ended_keeps_no_directory_open(store: FileInstanceStore) -> None:
    def publish() -> None:
        store.put_artifact(f"{threading.get_ident()}/b", b"first")
        store.put_artifact("a/c", b"second")
        store.put_artifact("a/d", b"third")

    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        thread = threading.Thread(target=publish)
        thread.start()
        thread.join()

    # One of an earlier test may have been closed meanwhile.
    assert len(list(Path("/proc/self/fd").iterdir())) <= before


def test_what_is_put_where_there_is_room_is_part_of_the_data_set(store: FileInstanceStore) -> None:
    with store.open_write(b"preamble") as sink:
        sink.write(b"da")
        for part in (b"ta s", b"et"):
            room = sink.room()
            room[: len(part)] = part
            sink.took(len(part))
        kept = sink.commit("instances/a/b.dcm")

    assert store.read("instances/a/b.dcm") == b"preambledata set"
    assert (kept.size_bytes, kept.digest) == (8, xxhash.xxh3_128_hexdigest(b"data set"))


@pytest.fixture(params=["unnamed", "named"])
def unfinished(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, store: FileInstanceStore
) -> FileSink:
    """Begin a file where file systems have files without names, and where they have none."""
    if request.param == "named":
        monkeypatch.setattr(durable_files, "_open_unnamed", lambda _folder: -1)
    return store.open_write(b"preamble ")


def test_what_a_living_process_writes_is_not_discarded(
    store: FileInstanceStore, unfinished: FileSink
) -> None:
    unfinished.write(b"data")

    assert store.discard_unfinished() == 0

    unfinished.commit("a/b")
    assert store.read("a/b") == b"preamble data"
    assert incoming(store) == []


def test_an_abort_leaves_nothing_on_any_file_system(
    store: FileInstanceStore, unfinished: FileSink
) -> None:
    unfinished.write(b"data")

    unfinished.abort()

    assert [path for path in store.root.rglob("*") if path.is_file()] == []


def test_a_file_url_opens_a_folder(tmp_path: Path) -> None:
    store = open_instance_store(f"file:{tmp_path}/with%20space")

    assert store.root == tmp_path / "with space"


@pytest.mark.parametrize("url", ["s3://bucket", "file://host/path", "/path", "file:", ""])
def test_any_other_url_is_refused(url: str) -> None:
    with pytest.raises(UnsupportedStoreUrl):
        open_instance_store(url)


def test_a_directory_that_somebody_else_made_is_synced_before_anything_is_promised(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a kill between creating and syncing leaves.
    (store.root / "instances" / "a").mkdir(parents=True)
    synced: list[Path] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)

    store.put_artifact("instances/a/b.dcm", b"data set")

    assert {store.root, store.root / "instances", store.root / "instances/a"} <= set(synced)

    synced.clear()
    store.put_artifact("instances/a/c.dcm", b"data set")
    assert store.root not in synced


def test_an_artifact_that_cannot_replace_another_leaves_it_as_it_was(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_artifact("a/b", b"first")
    discarded: list[int] = []

    def rename(*_args: object, **_directories: object) -> None:
        # A living writer's stays.
        discarded.append(store.discard_unfinished())
        raise OSError(errno.EIO, "it fails")

    monkeypatch.setattr(os, "rename", rename)

    with pytest.raises(OSError, match="it fails"):
        store.put_artifact("a/b", b"second")

    assert discarded == [0]
    assert store.read("a/b") == b"first"
    assert incoming(store) == []


def test_artifacts_are_kept_where_every_file_has_a_name(
    store: FileInstanceStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable_files, "_open_unnamed", lambda _folder: -1)

    for content in (b"first", b"second"):
        store.put_artifact("a/b", content)

        assert store.read("a/b") == content
        assert incoming(store) == []


@pytest.mark.parametrize("digest_of", [hashlib.sha256, xxhash.xxh3_128])
def test_a_data_set_is_intact_if_it_has_the_digest_of_its_key(
    digest_of: Callable[[bytes], Any],
) -> None:
    digest = digest_of(b"data set").hexdigest()

    assert is_intact(io.BytesIO(b"data set"), digest)
    assert not is_intact(io.BytesIO(b"date set"), digest)
    assert not is_intact(io.BytesIO(b""), digest)
