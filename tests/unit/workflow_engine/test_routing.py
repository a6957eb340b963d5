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
    route,
)

DX = "1.2.840.10008.5.1.4.1.1.1.1"


def a_model(name: str, *modalities: str) -> RoutableModel:
    rule = ApplicabilityRule(
        modality=AllowedCodes(values=modalities, absent=WhenAbsent.REFUSE), sop_class_uid=(DX,)
    )
    return RoutableModel(ModelReference(name=name, version="1.0.0"), rule)


def an_instance(uid: str, modality: str | None = "DX") -> RoutableInstance:
    attributes = InstanceAttributes(
        modality=modality, body_part_examined=None, sop_class_uid=DX, view_position=None
    )
    return RoutableInstance(uid, attributes)


def test_a_model_is_asked_about_the_instances_that_its_rule_matches() -> None:
    routing = route([a_model("chest", "DX")], [an_instance("1"), an_instance("2", "MR")])

    assert routing.route is not None
    assert routing.route.sop_instance_uids == ("1",)


def test_of_two_models_the_one_that_reads_more_is_asked() -> None:
    instances = [an_instance("1"), an_instance("2", "CR")]

    routing = route([a_model("a", "DX"), a_model("b", "DX", "CR")], instances)

    assert routing.route is not None
    assert routing.route.model.name == "b"
    assert [each.name for each in routing.passed_over] == ["a"]


def test_of_equals_the_first_by_name_is_asked_whichever_was_registered_first() -> None:
    models = [a_model("b", "DX"), a_model("a", "DX")]

    chosen = {route(order, [an_instance("1")]).route for order in (models, models[::-1])}

    assert [each.model.name for each in chosen if each] == ["a"]


def test_where_no_rule_fits_each_reason_is_told_once() -> None:
    routing = route([a_model("chest", "DX")], [an_instance("1", "MR"), an_instance("2", "MR")])

    assert routing.route is None
    assert routing.reasons == ("chest 1.0.0: Modality (0008,0060) is not DX.",)


def test_no_model_and_no_image_are_reasons_too() -> None:
    assert route([], [an_instance("1")]).reasons == (NO_MODEL_REGISTERED,)
    assert route([a_model("chest", "DX")], []).reasons == (NO_IMAGE,)
