"""Which model reads which instances of a study. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from message_contracts.applicability import ApplicabilityRule, InstanceAttributes
from message_contracts.inference import ModelReference


@dataclass(frozen=True)
class RoutableModel:
    """A model that may be asked, and the rule that says what it reads."""

    reference: ModelReference
    rule: ApplicabilityRule


@dataclass(frozen=True)
class RoutableInstance:
    """An image of the study, and what a rule may ask of it."""

    sop_instance_uid: str
    attributes: InstanceAttributes


@dataclass(frozen=True)
class Route:
    """The model that is asked, and the instances that it reads."""

    model: ModelReference
    sop_instance_uids: tuple[str, ...]


@dataclass(frozen=True)
class Routing:
    """What the rules say of a study."""

    route: Route | None
    passed_over: tuple[ModelReference, ...] = ()
    """Models that would read it as well."""
    reasons: tuple[str, ...] = ()
    """Why no model reads it; empty where one does."""


NO_MODEL_REGISTERED = "No model is registered."
NO_IMAGE = "The study has no image that a model could read."


def route(models: Sequence[RoutableModel], instances: Sequence[RoutableInstance]) -> Routing:
    """Return the one model that reads most instances of a study; of equals, the first by name."""
    routes = sorted(
        (found for model in models if (found := _route_to(model, instances)) is not None),
        key=lambda each: (-len(each.sop_instance_uids), each.model.name, each.model.version),
    )
    if routes:
        return Routing(routes[0], passed_over=tuple(each.model for each in routes[1:]))
    return Routing(None, reasons=_reasons(models, instances))


def _route_to(model: RoutableModel, instances: Sequence[RoutableInstance]) -> Route | None:
    read = tuple(
        instance.sop_instance_uid
        for instance in instances
        if not model.rule.mismatches(instance.attributes)
    )
    return Route(model.reference, read) if read else None


def _reasons(
    models: Sequence[RoutableModel], instances: Sequence[RoutableInstance]
) -> tuple[str, ...]:
    if not models:
        return (NO_MODEL_REGISTERED,)
    if not instances:
        return (NO_IMAGE,)
    # A dictionary keeps the order and each reason once, however many instances give it.
    return tuple(
        dict.fromkeys(
            f"{model.reference.name} {model.reference.version}: {reason}"
            for model in models
            for instance in instances
            for reason in model.rule.mismatches(instance.attributes)
        )
    )
