import os

from dicom_listener.admission import Rejection
from dicom_listener.association_count import AssociationCount


def test_the_limit_holds_over_all_processes() -> None:
    count = AssociationCount(processes=2, limit=3)
    first, second = count.of_process(0), count.of_process(1)

    entered = [process.enter("CT1", None) for process in (first, second, second, first)]

    assert entered == [None, None, None, Rejection.TOO_MANY]
    assert count.total == 3


def test_the_limit_of_a_peer_holds_over_all_processes() -> None:
    count = AssociationCount(processes=2, limit=9)
    first, second = count.of_process(0), count.of_process(1)

    entered = [process.enter("CT1", 2) for process in (first, second, second)]

    assert entered == [None, None, Rejection.TOO_MANY_OF_PEER]
    assert first.enter("CT2", 2) is None


def test_one_that_leaves_makes_room() -> None:
    process = AssociationCount(processes=1, limit=2).of_process(0)
    process.enter("CT1", 1)
    process.enter("MR1", None)

    process.leave("CT1")

    assert process.enter("CT1", 1) is None
    assert process.enter("CT1", None) is Rejection.TOO_MANY


def test_what_a_dead_process_had_is_forgotten() -> None:
    count = AssociationCount(processes=2, limit=2)
    dead, living = count.of_process(0), count.of_process(1)
    for _ in range(2):
        dead.connect()
        dead.enter("CT1", None)

    count.clear(0)

    assert living.enter("CT1", None) is None
    living.connect()
    assert living.has_more_than_others()


def test_a_process_that_dies_while_it_looks_locks_nobody_out() -> None:
    count = AssociationCount(processes=2, limit=2)
    child = os.fork()
    if not child:
        count.of_process(0)._all_locked().__enter__()
        os._exit(0)
    os.waitpid(child, 0)

    assert count.of_process(1).enter("CT1", None) is None


def test_the_busier_process_knows_it() -> None:
    count = AssociationCount(processes=2, limit=9)
    first, second = count.of_process(0), count.of_process(1)

    first.connect()

    assert first.has_more_than_others()
    assert not second.has_more_than_others()
    first.disconnect()
    assert not first.has_more_than_others()
