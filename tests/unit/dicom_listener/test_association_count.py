from dicom_listener.association_count import AssociationCount


def test_the_limit_holds_over_all_processes() -> None:
    count = AssociationCount(processes=2, limit=3)
    first, second = count.of_process(0), count.of_process(1)

    entered = [first.enter(), second.enter(), second.enter(), first.enter()]

    assert entered == [True, True, True, False]
    assert count.total == 3


def test_one_that_leaves_makes_room() -> None:
    process = AssociationCount(processes=1, limit=1).of_process(0)
    process.enter()

    process.leave()

    assert process.enter()


def test_the_associations_of_a_dead_process_are_forgotten() -> None:
    count = AssociationCount(processes=2, limit=2)
    count.of_process(0).enter()
    count.of_process(0).enter()

    count.clear(0)

    assert count.of_process(1).enter()


def test_the_busier_process_knows_it() -> None:
    count = AssociationCount(processes=2, limit=9)
    first, second = count.of_process(0), count.of_process(1)

    first.enter()

    assert first.has_more_than_others()
    assert not second.has_more_than_others()
