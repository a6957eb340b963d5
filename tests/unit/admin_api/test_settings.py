import pytest

from admin_api.settings import ApiSettings
from service_runtime.settings import WrongSettings, read


def test_it_listens_on_loopback_unless_told_otherwise() -> None:
    assert read(ApiSettings).http_host == "127.0.0.1"


def test_a_short_key_is_refused_without_quoting_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COUNTERSIGN_TOKEN_KEY", "swordfish")

    with pytest.raises(WrongSettings, match="COUNTERSIGN_TOKEN_KEY") as refused:
        read(ApiSettings)

    assert "swordfish" not in str(refused.value)


@pytest.mark.parametrize(
    "destinations",
    [
        '[{"name":"EHR","ae_title":"A","host":"h","port":104}]',
        '[{"name":"A","ae_title":"A","host":"h","port":0}]',
        '[{"name":"A","ae_title":"A","host":"h","port":1,"release":"SOON"}]',
        (
            '[{"name":"A","ae_title":"A","host":"h","port":1},'
            '{"name":"A","ae_title":"B","host":"h","port":1}]'
        ),
    ],
)
def test_destinations_that_cannot_be_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch, destinations: str
) -> None:
    monkeypatch.setenv("COUNTERSIGN_PACS_DESTINATIONS", destinations)

    with pytest.raises(WrongSettings, match="COUNTERSIGN_PACS_DESTINATIONS"):
        read(ApiSettings)
