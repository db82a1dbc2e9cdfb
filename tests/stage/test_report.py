import json

from voice_dpki.stage.report import encode_report


def test_a_report_keeps_its_order_and_its_letters() -> None:
    data = encode_report({"version": 1, "shows": "überprüft", "checks": ({"held": True},)})
    assert list(json.loads(data)) == ["version", "shows", "checks"]
    assert "überprüft".encode() in data
    assert data.endswith(b"}\n")
