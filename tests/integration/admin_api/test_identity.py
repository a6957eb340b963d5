from __future__ import annotations

from datetime import timedelta

import httpx
import pytest
from sqlalchemy import select

from admin_api import passwords, users
from imaging_store.schema.administration import users as users_table
from tests.integration.admin_api.conftest import PASSWORD, Hospital
from tests.integration.admin_api.test_sign_off import problem

EMAIL = "doctor@hospital.example"


def log_in(hospital: Hospital, email: str, password: str) -> httpx.Response:
    return hospital.anybody().post(
        "/api/v1/auth/login", json={"email": email, "password": password}
    )


def test_log_in_gives_a_token_and_says_whose(hospital: Hospital) -> None:
    hospital.hire("doctor")

    body = log_in(hospital, EMAIL.upper(), PASSWORD).raise_for_status().json()

    assert body["token_type"] == "Bearer"
    assert body["expires_in"] == 900
    assert (body["user"]["email"], body["user"]["role"]) == (EMAIL, "doctor")


def test_a_wrong_password_and_an_unknown_address_are_answered_alike(hospital: Hospital) -> None:
    hospital.hire("doctor")

    wrong = log_in(hospital, EMAIL, "guess")
    unknown = log_in(hospital, "nobody@hospital.example", "guess")

    problem(wrong, 401, "not-logged-in")
    assert (wrong.status_code, wrong.json()) == (unknown.status_code, unknown.json())


def test_an_address_with_a_control_character_is_at_fault(hospital: Hospital) -> None:
    problem(log_in(hospital, "doctor\0@hospital.example", PASSWORD), 422, "invalid-request")


def test_guessing_shuts_an_account_for_longer_and_longer(hospital: Hospital) -> None:
    hospital.hire("doctor")
    waits = []
    for _ in range(7):
        log_in(hospital, EMAIL, "guess")
        user = users.by_email(hospital.database, EMAIL)
        assert user is not None
        if user.locked_until:
            waits.append(user.locked_until - hospital.now)
            hospital.now = user.locked_until

    assert waits == sorted(set(waits))
    assert len(waits) == 3
    log_in(hospital, EMAIL, "guess")
    problem(log_in(hospital, EMAIL, PASSWORD), 401, "not-logged-in")
    hospital.now += timedelta(minutes=20)
    assert log_in(hospital, EMAIL, PASSWORD).is_success
    again = users.by_email(hospital.database, EMAIL)
    assert again is not None
    assert again.failed_attempts == 0


def test_of_guesses_sent_together_no_more_count_than_of_guesses_in_turn(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    hospital.hire("doctor")
    user = users.by_email(hospital.database, EMAIL)
    check = passwords.matches

    def others_guess_meanwhile(password_hash: str | None, password: str) -> bool:
        for _ in range(5):
            users.note_attempt(hospital.database, user, right=False, now=hospital.now)
        return check(password_hash, password)

    monkeypatch.setattr(passwords, "matches", others_guess_meanwhile)

    problem(log_in(hospital, EMAIL, PASSWORD), 401, "not-logged-in")


def test_a_request_without_a_token_is_refused(hospital: Hospital) -> None:
    answer = hospital.anybody().get("/api/v1/cases")

    problem(answer, 401, "not-signed-in")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("token", ["x", "x.y.z", "eyJhbGciOiJub25lIn0.e30."])
def test_a_token_that_is_not_ours_is_refused(hospital: Hospital, token: str) -> None:
    answer = hospital.anybody().get("/api/v1/cases", headers={"Authorization": f"Bearer {token}"})

    problem(answer, 401, "not-signed-in")


def test_a_token_runs_out(hospital: Hospital) -> None:
    doctor = hospital.hire("doctor")
    hospital.now += timedelta(minutes=16)

    problem(doctor.get("/api/v1/cases"), 401, "not-signed-in")


@pytest.mark.parametrize("change", ["disable", "set_role", "set_password"])
def test_a_token_is_worth_nothing_once_the_account_has_changed(
    hospital: Hospital, change: str
) -> None:
    doctor = hospital.hire("doctor")
    new = {"disable": hospital.now, "set_role": "admin", "set_password": "another password"}

    getattr(users, change)(hospital.database, EMAIL, new[change])

    problem(doctor.get("/api/v1/cases"), 401, "not-signed-in")


def test_a_disabled_account_cannot_log_in(hospital: Hospital) -> None:
    hospital.hire("doctor")
    users.disable(hospital.database, EMAIL, hospital.now)

    problem(log_in(hospital, EMAIL, PASSWORD), 401, "not-logged-in")


def test_a_password_is_kept_as_argon2id_only(hospital: Hospital) -> None:
    hospital.hire("doctor")

    with hospital.database.reading() as connection:
        row = connection.execute(select(users_table)).one()

    assert row.password_hash.startswith("$argon2id$")
    assert PASSWORD not in str(row)


@pytest.mark.parametrize(
    ("fields", "at_fault"),
    [
        (("no address", "doctor", "Ada", PASSWORD), "email"),
        (("a@b.example", "surgeon", "Ada", PASSWORD), "role"),
        (("a@b.example", "doctor", " ", PASSWORD), "name"),
        (("a@b.example", "doctor", "Ada", "short"), "password"),
    ],
)
def test_an_account_that_cannot_be_says_which_field(
    hospital: Hospital, fields: tuple[str, str, str, str], at_fault: str
) -> None:
    with pytest.raises(users.InvalidAccount, match=f"^{at_fault}:") as refused:
        users.add(hospital.database, *fields, hospital.now)

    assert fields[3] not in str(refused.value)


def test_an_address_has_one_account(hospital: Hospital) -> None:
    hospital.hire("doctor")

    with pytest.raises(users.AccountExists):
        users.add(hospital.database, EMAIL.upper(), "admin", "Ada", PASSWORD, hospital.now)
    with pytest.raises(users.NoSuchAccount):
        users.disable(hospital.database, "nobody@hospital.example", hospital.now)
