"""Which instances a model reads: a rule that is declared and compared, never evaluated as code."""

import re
from collections.abc import Iterator
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from message_contracts.identifiers import AETitle

LONGEST_TEXT = 64
"""Characters of a description that are compared, and of a pattern: as long as a VR LO is."""

CodeString = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9_ ]{1,16}$")]
"""VR CS (PS3.5 §6.2): upper-case letters, digits, space, underscore; at most 16 characters."""
StandardUid = Annotated[str, StringConstraints(pattern=r"^(0|[1-9]\d*)(\.(0|[1-9]\d*))+$")]
"""A UID as PS3.5 §9.1 has it, apart from its length."""
Pattern = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=LONGEST_TEXT)
]
"""Of the whole text: ``*`` stands for any run of characters, ``?`` for one, all else for itself."""


class Declared(BaseModel):
    """A part of a description: fields that it does not know are refused by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class InstanceAttributes(Declared):
    """What a rule may ask of an instance; an absent or empty element is ``None`` or ``()``."""

    modality: str | None
    """(0008,0060)."""
    body_part_examined: str | None
    """(0018,0015)."""
    sop_class_uid: str | None
    """(0008,0016)."""
    view_position: str | None
    """(0018,5101)."""
    image_type: tuple[str, ...] = ()
    """(0008,0008), its values in order (PS3.3 §C.7.6.1.1.2)."""
    laterality: str | None = None
    """(0020,0062), or else (0020,0060)."""
    series_description: str | None = None
    """(0008,103E)."""
    calling_ae_title: str | None = None
    """Who sent it; a file has no sender."""
    patient_age_years: float | None = None
    """By (0010,1010), or else by birth and study date."""
    view_code: str | None = None
    """(0054,0220), as the term of View Position that it stands for."""


class WhenAbsent(StrEnum):
    """What becomes of an instance that does not say."""

    MATCH = "match"
    REFUSE = "refuse"


class Verdict(NamedTuple):
    """What one part of a rule says of an instance; never with the instance's own words."""

    fits: bool
    reason: str
    """A sentence."""


class AllowedCodes(Declared):
    """The code strings that match, compared without regard to case and outer spaces."""

    values: tuple[CodeString, ...] = Field(min_length=1)
    absent: WhenAbsent
    """Many real radiographs leave Body Part Examined and View Position out; say what then."""

    def verdict(self, name: str, value: str | None) -> Verdict:
        """Compare the value of the element that ``name`` names."""
        given, wanted = _normal(value), " or ".join(self.values)
        if not given:
            return _of_absent(name, self.absent, f"{wanted} needed")
        return _of_present(name, f"{wanted}", is_in=given in self.values)


class AllowedAETitles(Declared):
    """The Application Entities that match; AE titles are compared with regard to case."""

    values: tuple[AETitle, ...] = Field(min_length=1)
    absent: WhenAbsent = WhenAbsent.REFUSE

    def verdict(self, name: str, value: str | None) -> Verdict:
        """Compare an AE title, without the spaces around it, which mean nothing."""
        given, wanted = (value or "").strip(" "), " or ".join(self.values)
        if not given:
            return _of_absent(name, self.absent, f"{wanted} needed")
        is_in = given in {each.strip(" ") for each in self.values}
        return _of_present(name, wanted, is_in=is_in)


class AllowedTexts(Declared):
    """Patterns of which one must match the whole text, without regard to case.

    They are shell patterns (`fnmatch`) without character classes, which Python compiles to atomic
    groups: at most pattern length times text length steps, both bounded, whatever is written.
    """

    patterns: tuple[Pattern, ...] = Field(min_length=1, max_length=32)
    absent: WhenAbsent

    def verdict(self, name: str, value: str | None) -> Verdict:
        """Compare the beginning of a text, as much of it as a VR LO holds."""
        given, wanted = _normal(value)[:LONGEST_TEXT], " or ".join(self.patterns)
        if not given:
            return _of_absent(name, self.absent, f"{wanted} needed")
        is_in = any(
            fnmatchcase(given, pattern.upper().replace("[", "[[]")) for pattern in self.patterns
        )
        return _of_present(name, wanted, is_in=is_in)


class AgeRange(Declared):
    """From ``at_least_years`` on, and before ``below_years``; one of them may be left out."""

    at_least_years: float | None = Field(default=None, ge=0, le=150)
    below_years: float | None = Field(default=None, gt=0, le=150)
    absent: WhenAbsent

    @model_validator(mode="after")
    def _has_someone_in_it(self) -> Self:
        if self.at_least_years is None and self.below_years is None:
            raise ValueError("at_least_years or below_years is needed")
        if None not in (self.at_least_years, self.below_years) and (
            (self.at_least_years or 0) >= (self.below_years or 0)
        ):
            raise ValueError("at_least_years must be less than below_years")
        return self

    def verdict(self, name: str, value: float | None) -> Verdict:
        """Compare an age in years."""
        wanted = " and ".join(
            f"{words} {years:g} years"
            for words, years in (("at least", self.at_least_years), ("below", self.below_years))
            if years is not None
        )
        if value is None:
            return _of_absent(name, self.absent, f"{wanted} needed")
        is_in = (self.at_least_years is None or value >= self.at_least_years) and (
            self.below_years is None or value < self.below_years
        )
        return _of_present(name, wanted, is_in=is_in)


class ApplicabilityRule(Declared):
    """Which instances the model reads: every declared attribute must match."""

    modality: AllowedCodes
    body_part_examined: AllowedCodes | None = None
    """``None``: any body part, also an absent one. Likewise below."""
    view_position: AllowedCodes | None = None
    """Of View Position and of View Code Sequence: each that is present must be among them."""
    laterality: AllowedCodes | None = None
    series_description: AllowedTexts | None = None
    calling_ae_title: AllowedAETitles | None = None
    patient_age: AgeRange | None = None
    sop_class_uid: tuple[StandardUid, ...] = Field(min_length=1)
    refused_image_types: tuple[tuple[CodeString, ...], ...] = ()
    """Image Types that are never read, by their first values: ``[DERIVED, SECONDARY]`` refuses
    what another system, or this one, drew."""
    priority: int = Field(default=0, ge=-1000, le=1000)
    """Of the models whose rules fit an instance, those of the highest priority read it."""

    def verdicts(self, attributes: InstanceAttributes) -> tuple[Verdict, ...]:
        """Say of every declared part of the rule whether an instance fits, and why."""
        return tuple(self._verdicts(attributes))

    def mismatches(self, attributes: InstanceAttributes) -> tuple[str, ...]:
        """Say why an instance is not for this model, a sentence a reason; empty where it is."""
        return tuple(each.reason for each in self._verdicts(attributes) if not each.fits)

    def _verdicts(self, of: InstanceAttributes) -> Iterator[Verdict]:
        yield self.modality.verdict("Modality (0008,0060)", of.modality)
        for name, codes, value in (
            ("Body Part Examined (0018,0015)", self.body_part_examined, of.body_part_examined),
            *self._views(of),
            ("Laterality (0020,0062)", self.laterality, of.laterality),
        ):
            if codes is not None:
                yield codes.verdict(name, value)
        if self.series_description is not None:
            yield self.series_description.verdict(
                "Series Description (0008,103E)", of.series_description
            )
        if self.calling_ae_title is not None:
            yield self.calling_ae_title.verdict("Calling AE title", of.calling_ae_title)
        if self.patient_age is not None:
            yield self.patient_age.verdict("Patient's age", of.patient_age_years)
        yield self._of_sop_class(of)
        if self.refused_image_types:
            yield self._of_image_type(of)

    def _views(
        self, of: InstanceAttributes
    ) -> Iterator[tuple[str, AllowedCodes | None, str | None]]:
        if of.view_position or not of.view_code:
            yield "View Position (0018,5101)", self.view_position, of.view_position
        if of.view_code:
            yield "View Code Sequence (0054,0220)", self.view_position, of.view_code

    def _of_sop_class(self, of: InstanceAttributes) -> Verdict:
        fits = (of.sop_class_uid or "").strip() in self.sop_class_uid
        which = "one" if fits else "none"
        return Verdict(fits, f"SOP Class UID (0008,0016) is {which} of those that the model reads.")

    def _of_image_type(self, of: InstanceAttributes) -> Verdict:
        image_type = tuple(_normal(value) for value in of.image_type)
        for refused in self.refused_image_types:
            if image_type[: len(refused)] == refused:
                kind = "\\".join(refused)
                return Verdict(
                    fits=False,
                    reason=f"Image Type (0008,0008) is {kind}, which the model never reads.",
                )
        return Verdict(
            fits=True, reason="Image Type (0008,0008) is none that the model never reads."
        )


def _of_present(name: str, wanted: str, *, is_in: bool) -> Verdict:
    return Verdict(is_in, f"{name} is {'' if is_in else 'not '}{wanted}.")


def _of_absent(name: str, absent: WhenAbsent, needed: str) -> Verdict:
    if absent is WhenAbsent.MATCH:
        return Verdict(fits=True, reason=f"{name} is absent, which the rule allows.")
    return Verdict(fits=False, reason=f"{name} is absent; {needed}.")


def _normal(value: str | None) -> str:
    return re.sub(r"\s+", " ", value or "").strip().upper()
