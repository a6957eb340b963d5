"""Which models read which instances of a study. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from message_contracts.applicability import ApplicabilityRule, InstanceAttributes, Verdict
from message_contracts.inference import ModelReference


@dataclass(frozen=True)
class RoutableModel:
    """A model that may be asked, and the rule that says what it reads."""

    reference: ModelReference
    rule: ApplicabilityRule
    shadow: bool = False
    """It is asked for comparison alone, and takes nothing away from the others."""


@dataclass(frozen=True)
class RoutableInstance:
    """An image of the study, and what a rule may ask of it."""

    sop_instance_uid: str
    attributes: InstanceAttributes


@dataclass(frozen=True)
class Route:
    """A model that is asked, and the instances that it reads."""

    model: ModelReference
    sop_instance_uids: tuple[str, ...]
    shadow: bool = False


@dataclass(frozen=True)
class Routing:
    """What the rules say of a study."""

    routes: tuple[Route, ...] = ()
    """The model of the highest priority first."""
    shadows: tuple[Route, ...] = ()
    passed_over: tuple[ModelReference, ...] = ()
    """Models whose rules fit, and that read nothing because others have a higher priority."""
    reasons: tuple[str, ...] = ()
    """Why no model reads it; empty where one does."""


@dataclass(frozen=True)
class Match:
    """Instances of which a rule says the same."""

    sop_instance_uids: tuple[str, ...]
    verdicts: tuple[Verdict, ...]
    outranked_by: tuple[ModelReference, ...]
    """Models of a higher priority whose rules fit as well."""

    @property
    def fits(self) -> bool:
        """Whether every part of the rule fits."""
        return all(each.fits for each in self.verdicts)

    @property
    def is_read(self) -> bool:
        """Whether the model reads these instances."""
        return self.fits and not self.outranked_by


@dataclass(frozen=True)
class Explanation:
    """What one model's rule says of a study, and why."""

    model: ModelReference
    shadow: bool
    priority: int
    matches: tuple[Match, ...]

    @property
    def is_asked(self) -> bool:
        """Whether the model reads any instance."""
        return any(each.is_read for each in self.matches)


NO_MODEL_REGISTERED = "No model is registered."
NO_IMAGE = "The study has no image that a model could read."


def route(models: Sequence[RoutableModel], instances: Sequence[RoutableInstance]) -> Routing:
    """Return every model that reads something of a study, and what.

    An instance is read by all models whose rules fit it and that share the highest priority among
    those. A model in shadow reads what it would read in the place of its own active version.
    """
    explained = explain(models, instances)
    routes = [_route(each, instances) for each in explained if each.is_asked]
    asked = tuple(each for each in routes if not each.shadow)
    return Routing(
        routes=asked,
        shadows=tuple(each for each in routes if each.shadow),
        passed_over=tuple(
            each.model
            for each in explained
            if not each.shadow and not each.is_asked and any(match.fits for match in each.matches)
        ),
        reasons=() if asked else _reasons(explained, instances),
    )


def explain(
    models: Sequence[RoutableModel], instances: Sequence[RoutableInstance]
) -> tuple[Explanation, ...]:
    """Say of every model which instances it reads, and why or why not.

    The order is that in which they are asked: by priority, then by name.
    """
    ordered = sorted(
        models,
        key=lambda each: (
            each.shadow,
            -each.rule.priority,
            each.reference.name,
            each.reference.version,
        ),
    )
    verdicts = {
        model.reference: [model.rule.verdicts(each.attributes) for each in instances]
        for model in ordered
    }
    return tuple(
        Explanation(
            model.reference,
            model.shadow,
            model.rule.priority,
            _matches(model, ordered, instances, verdicts),
        )
        for model in ordered
    )


def _matches(
    model: RoutableModel,
    models: Sequence[RoutableModel],
    instances: Sequence[RoutableInstance],
    verdicts: dict[ModelReference, list[tuple[Verdict, ...]]],
) -> tuple[Match, ...]:
    rivals = [
        each
        for each in models
        if not each.shadow
        and each.rule.priority > model.rule.priority
        and each.reference.name != model.reference.name
    ]
    groups: dict[tuple[tuple[Verdict, ...], tuple[ModelReference, ...]], list[str]] = {}
    for place, instance in enumerate(instances):
        said = verdicts[model.reference][place]
        above: tuple[ModelReference, ...] = ()
        if all(each.fits for each in said):
            above = tuple(
                rival.reference
                for rival in rivals
                if all(each.fits for each in verdicts[rival.reference][place])
            )
        groups.setdefault((said, above), []).append(instance.sop_instance_uid)
    return tuple(Match(tuple(uids), said, above) for (said, above), uids in groups.items())


def _route(explained: Explanation, instances: Sequence[RoutableInstance]) -> Route:
    read = {uid for match in explained.matches if match.is_read for uid in match.sop_instance_uids}
    # In the order of the study, which is not that of the groups.
    ordered = (each.sop_instance_uid for each in instances if each.sop_instance_uid in read)
    return Route(explained.model, tuple(ordered), explained.shadow)


def _reasons(
    explained: Sequence[Explanation], instances: Sequence[RoutableInstance]
) -> tuple[str, ...]:
    active = [each for each in explained if not each.shadow]
    if not active:
        return (NO_MODEL_REGISTERED,)
    if not instances:
        return (NO_IMAGE,)
    # A dictionary keeps the order and each reason once, however many instances give it.
    return tuple(
        dict.fromkeys(
            f"{each.model.name} {each.model.version}: {verdict.reason}"
            for each in active
            for match in each.matches
            for verdict in match.verdicts
            if not verdict.fits
        )
    )
