"""A model in a process of its own, watched from outside: it may raise, hang, leak or crash."""

import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from imaging_pixels.render import Picture
from inference_worker.forward_answers import Answer, Kind, Question
from inference_worker.model_folder import InvalidModelFolder
from inference_worker.prediction import Prediction
from service_runtime.errors import TransientError

CHILD = (sys.executable, "-m", "inference_worker.forward_child")
LOAD_DEADLINE_S = 600.0
_LOOK_S = 0.1
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PACKAGES = Path(__file__).resolve().parent.parent

_PASSED_ON = {"PATH", "HOME", "LANG", "TMPDIR", "TZ", "PYTHONPATH", "XDG_CACHE_HOME"}
_PASSED_ON_PREFIXES = (
    *("LC_", "LD_", "GLIBC_", "MALLOC_", "PYTHONHASH", "PYTHONDONTWRITE"),
    *("TF_", "KERAS_", "XLA_", "CUDA_", "NVIDIA_", "ROCM_", "HIP_", "HSA_"),
    *("OMP_", "MKL_", "ONEDNN_", "OPENBLAS_"),
)
"""What Python, TensorFlow and its libraries read. A model is somebody else's code perhaps: the
worker's settings, with the passwords in them, are no business of its process."""


class Fault(StrEnum):
    """What a model did."""

    RAISED = "raised"
    HANGS = "hangs"
    LEAKS = "leaks"
    DIED = "died"


class ModelFault(TransientError):
    """The model's process gave no answer; the text says why. It has been ended, or can go on."""

    def __init__(self, fault: Fault, reason: str) -> None:
        super().__init__(reason)
        self.fault = fault


@dataclass(frozen=True)
class Limits:
    """What a model may take."""

    deadline_s: float
    """For one batch."""
    memory_bytes: int
    """Resident, of its process."""


USUAL_LIMITS = Limits(deadline_s=60, memory_bytes=4 * 2**30)


class ForwardProcess:
    """A running process of one model. Use it from one thread at a time.

    Raises
    ------
    InvalidModelFolder
        The model does not load, or takes too long or too much memory for it.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._limits = limits
        ours, theirs = socket.socketpair()
        # A process that hangs may not take its batch either.
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(limits.deadline_s))
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - our own module
                [*CHILD, str(theirs.fileno()), str(folder)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=_environment(),
            )
        self._connection: Connection[Any, Answer] = Connection(ours.detach())
        # Made once: the connection's own way of waiting makes a selector each time.
        self._readable = select.poll()
        self._readable.register(self._connection, select.POLLIN)
        try:
            answer = self._answer(time.monotonic(), LOAD_DEADLINE_S)
        except ModelFault as error:
            raise InvalidModelFolder(f"{folder.name}: weights: loading them {error}") from error
        if answer.kind is not Kind.READY:
            self.close()
            raise InvalidModelFolder(str(answer.content))

    @property
    def process_id(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def memory_bytes(self) -> int:
        """What the process has in memory; 0 where it is gone."""
        with suppress(OSError, ValueError, IndexError):
            fields = Path(f"/proc/{self._process.pid}/statm").read_text(encoding="ascii").split()
            return int(fields[1]) * _PAGE_BYTES
        return 0

    def predict(self, batch: Picture, explained: int | None = None) -> Sequence[Prediction]:
        """Have the model read ``[n, rows, columns]`` gray or ``[n, rows, columns, 3]`` RGB.

        ``explained`` is the place of the class that the heat maps explain, by default the most
        probable one of each picture.

        Raises
        ------
        ModelFault
            It raised, and can be asked again; or it hung, took too much memory or ended, and the
            process is gone.
        """
        began_s = time.monotonic()
        try:
            self._connection.send(Question(batch, explained))
        except BlockingIOError:
            self._end(Fault.HANGS, f"took no batch within {self._limits.deadline_s:g} s")
        except OSError as error:
            self.close()
            raise ModelFault(Fault.DIED, "ended by itself") from error
        answer = self._answer(began_s, self._limits.deadline_s)
        if answer.kind is Kind.RAISED:
            raise ModelFault(Fault.RAISED, f"raised {answer.content}")
        predictions: Sequence[Prediction] = answer.content
        return predictions

    def kill(self) -> None:
        """End the process while another thread waits for it; that one closes it."""
        self._process.kill()

    def close(self) -> None:
        """End the process, whatever it is doing."""
        self._connection.close()
        self._process.kill()
        self._process.wait()

    def _answer(self, began_s: float, deadline_s: float) -> Answer:
        try:
            while not self._readable.poll(1000 * _LOOK_S):
                if self.memory_bytes > self._limits.memory_bytes:
                    self._end(Fault.LEAKS, f"took more than {self._limits.memory_bytes >> 20} MiB")
                if time.monotonic() > began_s + deadline_s:
                    self._end(Fault.HANGS, f"gave no answer within {deadline_s:g} s")
            answer: Answer = self._connection.recv()
        except (EOFError, OSError):
            self._end(Fault.DIED, "ended by itself")
        return answer

    def _end(self, fault: Fault, reason: str) -> NoReturn:
        self.close()
        raise ModelFault(fault, reason)


Start = Callable[[Path, Limits], ForwardProcess]
"""Starts the process of a model."""


def _environment() -> dict[str, str]:
    """Return what the child may know of our environment, such that it finds these packages."""
    passed_on = {
        name: value
        for name, value in os.environ.items()
        if name in _PASSED_ON or name.startswith(_PASSED_ON_PREFIXES)
    }
    paths = [str(_PACKAGES), os.environ.get("PYTHONPATH", "")]
    return {
        "TF_CPP_MIN_LOG_LEVEL": "2",
        **passed_on,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


def _timeval(duration_s: float) -> bytes:
    """Return a duration as the kernel takes it."""
    whole_s = int(duration_s)
    return struct.pack("@ll", whole_s, round((duration_s - whole_s) * 1e6))
