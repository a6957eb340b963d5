from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from message_contracts.applicability import (
    AllowedCodes,
    ApplicabilityRule,
    InstanceAttributes,
    WhenAbsent,
)
from message_contracts.inference import ModelReference
from workflow_engine.routing import (
    NO_IMAGE,
    NO_MODEL_REGISTERED,
    RoutableInstance,
    RoutableModel,
    Routing,
    explain,
    route,
)

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def a_model(
    name: str, *modalities: str, priority: int = 0, version: str = "1.0.0", shadow: bool = False
) -> RoutableModel:
    rule = ApplicabilityRule(
        modality=AllowedCodes(values=modalities, absent=WhenAbsent.REFUSE),
        sop_class_uid=(DX,),
        priority=priority,
    )
    return RoutableModel(ModelReference(name=name, version=version), rule, shadow)


def an_instance(uid: str, modality: str | None = "DX") -> RoutableInstance:
    attributes = InstanceAttributes(
        modality=modality, body_part_examined=None, sop_class_uid=DX, view_position=None
    )
    return RoutableInstance(uid, attributes)


def read(routing: Routing) -> dict[str, tuple[str, ...]]:
    return {each.model.name: each.sop_instance_uids for each in routing.routes}


def test_a_model_is_asked_about_the_instances_that_its_rule_matches() -> None:
    routing = route([a_model("chest", "DX")], [an_instance("1"), an_instance("2", "MR")])

    assert read(routing) == {"chest": ("1",)}


def test_every_model_reads_what_its_rule_fits() -> None:
    instances = [an_instance("1"), an_instance("2", "CR")]

    routing = route([a_model("b", "DX"), a_model("a", "DX", "CR")], instances)

    assert list(read(routing).items()) == [("a", ("1", "2")), ("b", ("1",))]
    assert routing.passed_over == ()


def test_of_several_priorities_the_highest_reads_an_instance() -> None:
    instances = [an_instance("1"), an_instance("2", "CR"), an_instance("3")]
    models = [a_model("general", "DX", "CR"), a_model("special", "DX", priority=5)]

    routing = route(models, instances)

    assert list(read(routing).items()) == [("special", ("1", "3")), ("general", ("2",))]


def test_a_model_that_others_leave_nothing_is_passed_over() -> None:
    models = [a_model("general", "DX"), a_model("special", "DX", priority=5)]

    routing = route(models, [an_instance("1")])

    assert read(routing) == {"special": ("1",)}
    assert [each.name for each in routing.passed_over] == ["general"]
    [special, general] = explain(models, [an_instance("1")])
    assert [each.name for each in general.matches[0].outranked_by] == ["special"]
    assert special.is_asked
    assert not general.is_asked


def test_a_shadow_reads_in_the_place_of_its_own_version_and_takes_nothing_away() -> None:
    models = [
        a_model("chest", "DX", priority=5),
        a_model("chest", "DX", priority=1, version="2.0.0", shadow=True),
        a_model("general", "DX"),
    ]

    routing = route(models, [an_instance("1")])

    assert read(routing) == {"chest": ("1",)}
    assert [each.model.version for each in routing.shadows] == ["2.0.0"]


def test_a_shadow_does_not_read_what_another_model_would_keep_from_it() -> None:
    models = [
        a_model("special", "DX", priority=5),
        a_model("chest", "DX", version="2.0.0", shadow=True),
    ]

    assert route(models, [an_instance("1")]).shadows == ()


def test_a_shadow_alone_leaves_the_study_without_a_model() -> None:
    routing = route([a_model("chest", "DX", shadow=True)], [an_instance("1")])

    assert routing.routes == ()
    assert [each.model.name for each in routing.shadows] == ["chest"]
    assert routing.reasons == (NO_MODEL_REGISTERED,)


def test_the_order_does_not_depend_on_who_was_registered_first() -> None:
    models = [a_model("b", "DX"), a_model("a", "DX"), a_model("c", "DX", priority=1)]

    names = {tuple(read(route(order, [an_instance("1")]))) for order in (models, models[::-1])}

    assert names == {("c",)}


def test_where_no_rule_fits_each_reason_is_told_once() -> None:
    routing = route([a_model("chest", "DX")], [an_instance("1", "MR"), an_instance("2", "MR")])

    assert routing.routes == ()
    assert routing.reasons == ("chest 1.0.0: Modality (0008,0060) is not DX.",)


def test_no_model_and_no_image_are_reasons_too() -> None:
    assert route([], [an_instance("1")]).reasons == (NO_MODEL_REGISTERED,)
    assert route([a_model("chest", "DX")], []).reasons == (NO_IMAGE,)


def test_instances_of_which_a_rule_says_the_same_are_told_together() -> None:
    instances = [an_instance(str(number), "DX" if number % 2 else "MR") for number in range(1000)]

    [chest] = explain([a_model("chest", "DX")], instances)

    assert [(len(each.sop_instance_uids), each.is_read) for each in chest.matches] == [
        (500, False),
        (500, True),
    ]
    assert chest.matches[1].verdicts[0].reason == "Modality (0008,0060) is DX."


MODALITIES = st.sampled_from(["DX", "CR", "MR"])
MODELS = st.builds(
    a_model,
    st.sampled_from("abc"),
    MODALITIES,
    priority=st.integers(0, 2),
    version=st.sampled_from(["1.0.0", "2.0.0"]),
    shadow=st.booleans(),
)


@given(st.lists(MODELS, unique_by=lambda each: each.reference, max_size=5), st.lists(MODALITIES))
def test_whoever_is_asked_fits_and_has_the_highest_priority(
    models: list[RoutableModel], modalities: list[str]
) -> None:
    instances = [an_instance(str(place), each) for place, each in enumerate(modalities)]

    routing = route(models, instances)

    active = [each for each in models if not each.shadow]
    for instance in instances:
        fitting = {
            each.reference: each.rule.priority
            for each in active
            if not each.rule.mismatches(instance.attributes)
        }
        uid = instance.sop_instance_uid
        readers = {each.model for each in routing.routes if uid in each.sop_instance_uids}
        best = max(fitting.values(), default=0)
        versions = len({each.name for each in fitting}) == len(fitting)
        if versions:
            assert readers == {each for each, priority in fitting.items() if priority == best}
    assert bool(routing.reasons) is not bool(routing.routes)


@pytest.mark.parametrize("shadow", [False, True])
def test_the_instances_of_a_route_are_in_the_order_of_the_study(shadow: bool) -> None:
    rule = ApplicabilityRule(
        modality=AllowedCodes(values=("DX",), absent=WhenAbsent.MATCH), sop_class_uid=(DX,)
    )
    model = RoutableModel(ModelReference(name="a", version="1.0.0"), rule, shadow)
    instances = [an_instance("1"), an_instance("2", None), an_instance("3")]

    routing = route([model], instances)

    [only] = routing.shadows if shadow else routing.routes
    assert only.sop_instance_uids == ("1", "2", "3")
