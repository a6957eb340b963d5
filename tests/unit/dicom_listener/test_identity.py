"""Whether an instance names the patient that its study is known by."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from dicom_listener.character_set import decode, encodings_of
from dicom_listener.identity import Identity, birth_date, completed, differing

JANE = Identity("P1", "HOSP", "Doe^Jane", "19700101")

words = st.text(st.characters(categories=("Lu", "Ll", "Lo", "Nd")), min_size=1, max_size=12)
names = st.lists(words, min_size=1, max_size=3).map("^".join)
dates = st.dates().map(lambda day: f"{day:%Y%m%d}".zfill(8))
identities = st.builds(Identity, words, words | st.just(""), names | st.just(""), dates)


def named(name: str) -> Identity:
    return JANE._replace(patient_name=name)


@given(identities)
def test_an_instance_agrees_with_itself(identity: Identity) -> None:
    assert differing(identity, identity) == ()


@given(identities, identities)
def test_who_agrees_with_whom_has_no_direction(one: Identity, other: Identity) -> None:
    assert differing(one, other) == differing(other, one)


@given(identities, words)
def test_another_patient_id_disagrees(identity: Identity, patient_id: str) -> None:
    assume(patient_id != identity.patient_id)

    assert differing(identity, identity._replace(patient_id=patient_id)) == ("PatientID",)


@given(identities)
def test_no_patient_id_disagrees_even_where_the_study_has_none(identity: Identity) -> None:
    nobody = identity._replace(patient_id="")

    assert differing(identity, nobody) == ("PatientID",)
    assert differing(nobody, nobody) == ("PatientID",)


@given(identities, st.sampled_from([1, 2, 3]))
def test_what_is_absent_disagrees_with_nothing(identity: Identity, which: int) -> None:
    without = Identity(*("" if each == which else value for each, value in enumerate(identity)))

    assert differing(identity, without) == differing(without, identity) == ()
    assert completed(without, identity) == identity


@given(identities, st.sampled_from(["^", "^^", "^^^^", " ", "=", "==", "=^^="]))
def test_empty_components_and_padding_change_no_name(identity: Identity, end: str) -> None:
    padded = identity._replace(patient_name=identity.patient_name + end)

    assert differing(identity, padded) == ()


@given(st.text("äöüßéñÅ", min_size=1, max_size=8), st.booleans())
def test_another_character_set_changes_no_name(name: str, decomposed: bool) -> None:
    name = unicodedata.normalize("NFC", f"{name}^Jane")
    latin = decode(name.encode("latin-1"), encodings_of(b"ISO_IR 100"))
    sent = unicodedata.normalize("NFD", name) if decomposed else name
    utf8 = decode(sent.encode(), encodings_of(b"ISO_IR 192"))
    undeclared = decode(name.encode(), encodings_of(None))

    assert differing(named(latin), named(utf8)) == ()
    assert differing(named(latin), named(undeclared)) == ()


def test_katakana_may_be_narrow_or_wide() -> None:
    assert (
        differing(named("ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎"), named("ヤマダ^タロウ=山田^太郎=やまだ^たろう")) == ()
    )


@pytest.mark.parametrize(
    ("known", "claimed"),
    [
        ("Doe^Jane", "DOE^JANE"),
        ("Doe^Jane", "Doe ^ Jane"),
        ("Van  Dyke^Jane", "Van Dyke^Jane"),
        ("Doe^Jane", "Doe^Jane^M^Dr^III"),
        ("Doe^Jane^M", "Doe^Jane^^Dr"),
        ("Yamada^Tarou=山田^太郎", "Yamada^Tarou"),
        ("Yamada^Tarou=山田^太郎", "=山田^太郎=やまだ^たろう"),
        ("Yamada^Tarou", "=山田^太郎"),
        ("", "^^^^"),
    ],
)
def test_these_are_spellings_of_one_name(known: str, claimed: str) -> None:
    assert differing(named(known), named(claimed)) == ()


@pytest.mark.parametrize(
    ("known", "claimed"),
    [
        ("Doe^Jane", "Doe^John"),
        ("Doe^Jane", "Doe"),
        ("Doe^Jane", "Jane^Doe"),
        ("Doe^Jane^M", "Doe^Jane^N"),
        ("Doe^Jane^^^Jr", "Doe^Jane^^^Sr"),
        ("Yamada^Tarou=山田^太郎", "Yamada^Tarou=山田^花子"),
        ("Doe^Jane", "Doe Jane"),
    ],
)
def test_these_are_two_names(known: str, claimed: str) -> None:
    assert differing(named(known), named(claimed)) == ("PatientName",)


def test_an_identifier_is_compared_to_the_letter() -> None:
    assert differing(JANE, JANE._replace(patient_id="p1")) == ("PatientID",)
    assert differing(JANE, JANE._replace(patient_id="001")) == ("PatientID",)
    assert differing(JANE, JANE._replace(issuer_of_patient_id="CLINIC")) == ("IssuerOfPatientID",)


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("1970.01.01", "19700101"),
        (" 19700101 ", "19700101"),
        ("1970-01-01", "19700101"),
        ("00000000", ""),
        ("", ""),
        ("1970", "1970"),
        ("unknown", "unknown"),
    ],
)
def test_a_date_has_one_form(sent: str, meant: str) -> None:
    assert birth_date(sent) == meant


def test_everything_that_disagrees_is_named() -> None:
    other = Identity("P2", "CLINIC", "Roe^Richard", "19710101")

    assert differing(JANE, other) == (
        "PatientID",
        "IssuerOfPatientID",
        "PatientName",
        "PatientBirthDate",
    )
