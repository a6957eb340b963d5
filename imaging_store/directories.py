"""Directories of a store, each durable in its parent before anything is kept in it."""

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from imaging_store.block_writing import Blocks

_DIRECTORIES_KNOWN = 4096


class Directories:
    """Directories under a root, each durable in its parent before anything is kept in it.

    That one is there says nothing: who made it may have died, or not have come to syncing it yet.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._durable = {""}
        self._held = threading.local()
        self.blocks = Blocks()
        """For writing the files of these directories."""

    def hold(self, directory: str) -> int:
        """Return an open descriptor of ``directory``, relative to the root, made where missing.

        It stays open until this thread asks for another, forgets it, or ends: the files of a study
        come one after another. Who asked does not close it.
        """
        held: _Held | None = getattr(self._held, "last", None)
        if held is None or held.directory != directory:
            held = self._held.last = _Held(directory, self._open(directory))
        return held.descriptor

    def forget(self, directory: str) -> None:
        """Look anew for a directory that somebody has removed."""
        self._durable.discard(directory)
        self._held.last = None

    def _open(self, directory: str) -> int:
        path = f"{self._root}/{directory}"
        if directory in self._durable:
            with suppress(FileNotFoundError):
                return open_directory(path)
        parent = self._open(directory.rpartition("/")[0])
        try:
            with suppress(FileExistsError):
                Path(path).mkdir()
            os.fsync(parent)
        finally:
            os.close(parent)
        if len(self._durable) >= _DIRECTORIES_KNOWN:
            self._durable = {""}
        self._durable.add(directory)
        return open_directory(path)


class _Held:
    """An open directory, closed when nobody has it any more."""

    def __init__(self, directory: str, descriptor: int) -> None:
        self.directory = directory
        self.descriptor = descriptor

    # At the end of the interpreter nothing is left of modules.
    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        close(self.descriptor)


def open_directory(path: str) -> int:
    """Return a descriptor of a directory, to sync it or to do something in it."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
