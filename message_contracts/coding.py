"""Coded concepts, as PS3.3 §8 and FHIR Coding share them."""

from pydantic import BaseModel, ConfigDict, Field


class CodedConcept(BaseModel):
    """A code value, the scheme that defines it, and its meaning in words (PS3.3 §8.1 to §8.3)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    value: str = Field(min_length=1, max_length=16)
    """(0008,0100)."""

    scheme_designator: str = Field(min_length=1, max_length=16)
    """(0008,0102), such as ``SCT`` or ``DCM`` (PS3.16 §8)."""

    meaning: str = Field(min_length=1, max_length=64)
    """(0008,0104)."""
