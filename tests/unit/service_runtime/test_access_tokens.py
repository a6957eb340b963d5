from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest

from service_runtime.access_tokens import InvalidToken, TokenAuthority

NOON = datetime(2026, 5, 4, 12, tzinfo=UTC)
KEY = b"k" * 32
AUTHORITY = TokenAuthority(KEY, issuer="countersign", audience="api")
CLAIMS: dict[str, Any] = {
    "iss": "countersign",
    "aud": "api",
    "sub": "u-1",
    "role": "doctor",
    "iat": NOON,
    "exp": NOON + timedelta(minutes=5),
    "jti": "t-1",
}


def signed(
    claims: dict[str, Any], *, key: bytes = KEY, algorithm: str = "HS256", typ: str = "at+jwt"
) -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers={"typ": typ})


def test_a_token_says_who_and_which_role() -> None:
    token = AUTHORITY.issue("u-1", "doctor", NOON, timedelta(minutes=5))

    said = AUTHORITY.verify(token, NOON + timedelta(minutes=4))

    assert (said.user_id, said.role) == ("u-1", "doctor")
    assert said.expires_at == NOON + timedelta(minutes=5)


def test_two_tokens_are_never_the_same() -> None:
    tokens = {AUTHORITY.issue("u-1", "doctor", NOON, timedelta(minutes=5)) for _ in range(2)}

    assert len(tokens) == 2


@pytest.mark.parametrize(
    "token",
    [
        pytest.param("", id="nothing"),
        pytest.param("a.b.c", id="not a token"),
        pytest.param(signed(CLAIMS, key=b"x" * 32), id="another key"),
        pytest.param(signed(CLAIMS, key=b"k" * 64, algorithm="HS512"), id="another algorithm"),
        pytest.param(jwt.encode(CLAIMS, "", algorithm="none"), id="no algorithm"),
        pytest.param(signed(CLAIMS, typ="JWT"), id="another type"),
        pytest.param(signed(CLAIMS | {"iss": "somebody"}), id="another issuer"),
        pytest.param(signed(CLAIMS | {"aud": "elsewhere"}), id="another audience"),
        pytest.param(signed({k: v for k, v in CLAIMS.items() if k != "exp"}), id="no end"),
        pytest.param(signed({k: v for k, v in CLAIMS.items() if k != "role"}), id="no role"),
        pytest.param(signed(CLAIMS | {"exp": NOON - timedelta(minutes=1)}), id="run out"),
    ],
)
def test_any_other_token_is_refused_and_not_quoted(token: str) -> None:
    with pytest.raises(InvalidToken) as refused:
        AUTHORITY.verify(token, NOON)

    assert not token or token not in str(refused.value)


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32 bytes"):
        TokenAuthority(b"short", "i", "a")
