"""The PDF as a person reads it, by Debian's PDF tools."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from zoneinfo import ZoneInfo

import cv2
import numpy as np
import pytest

from fhir_bridge.report import Pictures, render
from fhir_bridge.signed_report import Decision, SignedReport
from tests.peers.processes import find_program, require
from tests.unit.fhir_bridge.reports import (
    PATIENT,
    READING,
    SITE,
    STUDY,
    a_report,
    an_override,
    doctor,
)

VIENNA = ZoneInfo("Europe/Vienna")
GRAY = cv2.imencode(".png", np.tile(np.arange(96, dtype="uint8"), (120, 1)))[1].tobytes()
COLOR = cv2.imencode(".png", np.full((120, 96, 3), (0, 60, 200), "uint8"))[1].tobytes()
PICTURES = Pictures(source=GRAY, heatmap=COLOR)


def a_pdf(report: SignedReport, pictures: Pictures | None = PICTURES) -> bytes:
    return render(report, SITE, pictures, VIENNA)


def poppler(program: str, pdf: bytes, folder: Path, *options: str) -> str:
    path = require(find_program(program), program, "poppler-utils")
    file = folder / "report.pdf"
    file.write_bytes(pdf)
    command = [str(path), *options, str(file), *(["-"] if program == "pdftotext" else [])]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def text_of(pdf: bytes, folder: Path) -> str:
    return poppler("pdftotext", pdf, folder, "-layout")


def test_what_other_models_have_read_is_told(tmp_path: Path) -> None:
    bones = replace(READING, model_name="bone-age", model_version="2.0.0")
    unsure = replace(bones, model_name="unsure", uncertain=True)

    text = text_of(a_pdf(replace(a_report(), others=(bones, unsure))), tmp_path)

    said = " ".join(text.split())
    assert "bone-age, version 2.0.0: Viral pneumonia, 71.0%" in said
    assert "unsure, version 2.0.0: uncertain (most probable: Viral pneumonia, 71.0%)" in said


def test_the_report_says_who_what_and_by_whom(tmp_path: Path) -> None:
    text = text_of(a_pdf(a_report()), tmp_path)

    for said in (
        "Saint Elsewhere Hospital",
        "Final report · version 1",
        "Mustermann, Dr. Erika Maria",
        "1964-08-12",
        "PAT-0815",
        "HOSP",
        "2026-03-04 09:30 UTC+01:00",
        "ACC-4711",
        "Viral pneumonia",
        "Consolidation, left.",
        "71.0%",
        "The doctor agreed with the model.",
        "Amoxicillin: renal dose adjusted.",
        "Dr. Greta Doctor",
        "Paul Pharmacist",
        "Ada Admin",
        "I approve this report for release",
        "2026-03-04 13:40 UTC+01:00",
        "Europe/Vienna",
        "AI - not for primary diagnosis",
        "chest-radiograph, version 1.0.0",
        str(a_report().case_id),
        "Page 1 of 1",
    ):
        assert said in text


def test_the_image_and_the_heat_map_stand_side_by_side(tmp_path: Path) -> None:
    images = poppler("pdfimages", a_pdf(a_report()), tmp_path, "-list").splitlines()[2:]

    assert [line.split()[5] for line in images] == ["gray", "rgb"]


def test_an_overridden_finding_is_told_as_such(tmp_path: Path) -> None:
    text = " ".join(text_of(a_pdf(an_override("Lung abscess")), tmp_path).split())

    assert "Lung abscess" in text
    assert "Viral pneumonia, 71.0%. The doctor overrode the model" in text
    assert "it is not a result of this report" in text


def test_an_uncertain_model_is_told_as_such(tmp_path: Path) -> None:
    report = a_report(
        doctor(Decision.OVERRIDE, "Normal", "Clear."), reading=replace(READING, uncertain=True)
    )

    text = text_of(a_pdf(report), tmp_path)

    assert "The model was uncertain" in text
    assert "overrode" not in text


def test_a_study_that_no_model_read_is_told_as_such(tmp_path: Path) -> None:
    report = a_report(doctor(Decision.UNINTERPRETABLE, notes="Motion."), reading=None)

    text = text_of(a_pdf(report, None), tmp_path)

    assert "No model has read this study." in text
    assert "The images cannot be interpreted." in text


def test_an_amended_report_says_so(tmp_path: Path) -> None:
    text = text_of(a_pdf(a_report(version=2, amends=True)), tmp_path)

    assert "Amended report · version 2" in text


def test_long_notes_go_on_over_pages_that_name_the_patient(tmp_path: Path) -> None:
    pdf = a_pdf(a_report(doctor(notes="A sentence of the notes. " * 600 + "The end.")))

    assert "Page 1 of 4" in text_of(pdf, tmp_path)
    last = poppler("pdftotext", pdf, tmp_path, "-layout", "-f", "2")
    assert "Mustermann, Dr. Erika Maria · 1964-08-12 · PAT-0815" in last
    assert "The end." in last


def test_markup_is_text(tmp_path: Path) -> None:
    report = a_report(doctor(notes='<b>bold</b> & <img src="file:///etc/passwd"> {{ 7*7 }}'))

    text = text_of(a_pdf(report), tmp_path)

    assert '<b>bold</b> & <img src="file:///etc/passwd"> {{ 7*7 }}' in text


@pytest.mark.parametrize("name", ["Κωνσταντίνου^Ελένη", "Иванова^Анна", "Müller^Jürgen"])
def test_names_that_are_not_latin_are_printed(tmp_path: Path, name: str) -> None:
    report = a_report(patient=replace(PATIENT, name=name))

    assert name.replace("^", ", ") in text_of(a_pdf(report), tmp_path)


def test_a_time_that_is_not_known_is_not_invented(tmp_path: Path) -> None:
    text = text_of(a_pdf(a_report(study=replace(STUDY, started="2026-03-04"))), tmp_path)

    [started] = [line for line in text.splitlines() if "Started" in line]
    assert started.split("Started")[1].strip() == "2026-03-04"


def test_the_same_report_is_the_same_bytes() -> None:
    assert a_pdf(a_report()) == a_pdf(a_report())


def test_the_pdf_is_tagged_a4_and_dated_by_the_last_signature(tmp_path: Path) -> None:
    info = poppler("pdfinfo", a_pdf(a_report()), tmp_path, "-isodates")

    facts = dict(line.split(":", 1) for line in info.splitlines())
    assert facts["Tagged"].strip() == "yes"
    assert "(A4)" in facts["Page size"]
    assert facts["CreationDate"].strip().startswith("2026-03-04T12:40:00")
    assert "Mustermann" not in info
