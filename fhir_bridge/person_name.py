"""Person names: VR PN (PS3.5 §6.2.1) taken apart for people and for FHIR."""

from dataclasses import dataclass

_GROUPS = ("ABC", "IDE", "SYL")
"""HL7 v3 EntityNameUse codes of PN's component groups: alphabetic, ideographic, phonetic."""


@dataclass(frozen=True, slots=True)
class PersonName:
    """One component group of a PN value."""

    representation: str
    """``ABC``, ``IDE`` or ``SYL``."""
    family: str
    given: tuple[str, ...]
    prefix: str
    suffix: str

    @property
    def text(self) -> str:
        """As people write it in a list: family name first."""
        given = " ".join(part for part in (self.prefix, *self.given) if part)
        last_first = ", ".join(part for part in (self.family, given) if part)
        return f"{last_first} {self.suffix}" if self.suffix else last_first


def person_names(value: str) -> tuple[PersonName, ...]:
    """Return the component groups of a PN value that say something."""
    groups = zip(_GROUPS, value.split("="), strict=False)
    names = (_person_name(representation, group) for representation, group in groups)
    return tuple(name for name in names if name.text)


def _person_name(representation: str, group: str) -> PersonName:
    components = [" ".join(component.split()) for component in group.split("^")]
    family, given, middle, prefix, suffix = (components + [""] * 5)[:5]
    return PersonName(
        representation, family, tuple(part for part in (given, middle) if part), prefix, suffix
    )
