import struct

from hypothesis import given
from hypothesis import strategies as st
from pynetdicom.pdu import P_DATA_TF

from dicom_listener.presentation_data import p_data_tf


@given(
    command_set=st.binary(min_size=1, max_size=400),
    context_id=st.integers(0, 127).map(lambda number: 2 * number + 1),
    maximum_length=st.one_of(st.just(0), st.integers(8, 500)),
)
def test_pynetdicom_reads_the_fragments_of_a_response(
    command_set: bytes, context_id: int, maximum_length: int
) -> None:
    rest = p_data_tf(context_id, command_set, maximum_length)

    values = []
    while rest:
        length = struct.unpack(">L", rest[2:6])[0]
        assert not maximum_length or length <= maximum_length
        pdu = P_DATA_TF()
        pdu.decode(rest[: 6 + length])
        values += pdu.to_primitive().presentation_data_value_list
        rest = rest[6 + length :]

    assert b"".join(value[1:] for _, value in values) == command_set
    assert {context for context, _ in values} == {context_id}
    assert [value[0] for _, value in values] == [1] * (len(values) - 1) + [3]
