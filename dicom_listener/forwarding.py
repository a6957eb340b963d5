"""Messages of other services than Storage: pynetdicom puts them together and decodes them."""

from queue import Queue
from typing import Any

from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.pdu_primitives import P_DATA

from dicom_listener.presentation_data import COMMAND, LAST


class Forwarding:
    """One message at a time on its way to ``messages``, each with its presentation context's ID."""

    def __init__(self, messages: "Queue[tuple[int | None, Any]]") -> None:
        self._messages = messages
        self._message = DIMSEMessage()
        self._left_bytes = 0
        self.is_amid_data_set = False

    def command(self, context_id: int, command_set: bytes, limit_bytes: int | None) -> None:
        """Take a command set, whose data set is at most so large; ``None``: it has none.

        Raises
        ------
        ValueError
            It is no message of PS3.7.
        """
        self.is_amid_data_set, self._left_bytes = limit_bytes is not None, limit_bytes or 0
        self._forward(context_id, COMMAND | LAST, command_set)

    def data(self, context_id: int, control: int, fragment: memoryview, left: int) -> None:
        """Take a part of its data set, as ``TakesFragments.on_fragment`` does.

        Raises
        ------
        ValueError
            There is more than may be, or it is no message of PS3.7.
        """
        self._left_bytes -= len(fragment)
        if self._left_bytes < 0:
            raise ValueError("a data set of no end for a service that is not offered")
        self._forward(context_id, control if not left else 0, bytes(fragment))
        self.is_amid_data_set = not control & LAST or bool(left)

    def _forward(self, context_id: int, control: int, value: bytes) -> None:
        fragment = P_DATA()
        fragment.presentation_data_value_list = [[context_id, bytes([control]) + value]]
        try:
            if not self._message.decode_msg(fragment):
                return
            message, self._message = self._message.message_to_primitive(), DIMSEMessage()
        except Exception as error:
            raise ValueError("a message that cannot be decoded") from error
        self._messages.put((context_id, message))
