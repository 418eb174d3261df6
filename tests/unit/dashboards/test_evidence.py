"""Evidence reads as an engineer would say it, and what is unknown is left out."""

import pytest

from dashboards import evidence

BODY = {
    "window_us": [1_000_000_000, 2_000_000_000],
    "zone": "C",
    "zone_table": "ISO 10816-1 class II",
    "checks": ["grease", "something_new"],
    "contributions": [
        {"sensor_id": 1, "sensor": "vibration_de", "kind": "vibration_velocity", "unit": "mm/s", "feature": "residual",
         "measured": 6.42, "expected": 1.94, "low": 1.5, "high": 2.6, "limit": 7.1, "contribution": 3.0, "onset_us": 5_000},
        {"sensor_id": 2, "sensor": "temperature", "kind": "temperature", "unit": "°C", "feature": "stuck",
         "measured": None, "expected": None, "low": None, "high": None, "limit": None, "contribution": 1.0, "onset_us": None},
    ],
}  # fmt: skip


def plain(text):
    return text.replace("\u2060", "")


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("en", "Vibration DE 6.42 mm/s, expected 1.94 (1.50–2.60)"),
        ("zh", "振动（DE） 6.42 mm/s，预期 1.94（1.50–2.60）"),
    ],
)
def test_headline_names_value_and_expectation(language, expected):
    assert plain(evidence.headline(BODY, language)) == expected


def test_headline_of_a_limit_without_expectation():
    body = {"contributions": [{"sensor": "t", "kind": "temperature", "unit": "°C", "measured": 106.0, "limit": 105.0}]}
    assert evidence.headline(body, "en") == "Temperature T 106 °C, limit 105 °C"


def test_headline_without_a_value_says_what_is_wrong():
    body = {"contributions": [BODY["contributions"][1]]}
    assert evidence.headline(body, "en") == "Temperature: stuck at one value"
    assert evidence.headline(body, "zh") == "温度：读数停滞"


def test_evidence_within_its_finding_is_found():
    assert evidence.headline({"key": "k", "evidence": BODY}, "en") == evidence.headline(BODY, "en")


@pytest.mark.parametrize(
    "empty", [{}, {"contributions": []}, {"contributions": None, "checks": None}, {"first_out": None}]
)
def test_nothing_known_is_nothing_shown(empty):
    assert evidence.headline(empty, "en") == ""
    assert evidence.rows(empty, "en") == []
    assert evidence.zone(empty, "en") is None
    assert evidence.checks(empty, "en") == []
    assert evidence.window_ms(empty) is None
    assert evidence.limits(empty) == []


def test_rows_share_the_score_and_keep_their_order():
    rows = evidence.rows(BODY, "en")
    assert [row["share"] for row in rows] == [0.75, 0.25]
    assert rows[0]["deviation"] == "above 4.48 mm/s"
    assert rows[0]["limit"] == "7.10"
    assert rows[1]["measured"] == rows[1]["expected"] == rows[1]["band"] == ""
    assert evidence.rows(BODY, "zh")[0]["deviation"] == "高于预期 4.48 mm/s"


def test_what_adds_nothing_to_the_score_is_left_out_but_never_the_first():
    body = {
        "contributions": [{"contribution": 0.0}, {"contribution": 2.0}, {"contribution": -1.0}, {"contribution": 0.01}]
    }
    assert [row["share"] for row in evidence.rows(body, "en")] == [0.0, pytest.approx(0.995, abs=1e-3)]


def test_zone_is_told_with_its_table():
    found = evidence.zone(BODY, "zh")
    assert (found["letter"], found["table"]) == ("C", "ISO 10816-1 class II")
    assert "不宜长期运行" in found["words"]


def test_a_check_without_words_reads_as_itself():
    assert evidence.checks(BODY, "en") == ["Check the grease", "Something new"]


def test_window_and_limits_are_for_the_chart():
    assert evidence.window_ms(BODY) == (1_000_000, 2_000_000)
    assert evidence.limits(BODY) == [
        {"sensor_id": 1, "source": "", "limit": 7.1, "low": 1.5, "high": 2.6, "expected": 1.94}
    ]


def test_confidence_is_no_probability_of_a_fault():
    assert evidence.confidence({"p_value": 0.001}, "en") == "A healthy machine deviates this much about once in 1,000"
    assert evidence.confidence({"p_value": None}, "en") == evidence.confidence({"p_value": 0.0}, "en") == ""


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("vibration_velocity", "vibration_de", "DE"),
        ("temperature", "temp-winding", "winding"),
        ("current", "current", ""),
        ("current", "l1", "L1"),
    ],
)
def test_place_of_a_sensor(kind, name, expected):
    assert evidence.place(kind, name) == expected


def test_health_and_outlook_stand_beside_the_rows_and_old_evidence_has_none():
    body = BODY | {"health": 0.25, "time_to_limit": {"low_us": 86_400_000_000, "high_us": 172_800_000_000, "limit": 7.1, "unit": "mm/s", "sensor": "vibration", "confidence": 0.9}}  # fmt: skip
    said = {row["name"]: row["text"] for row in evidence.beside(body, "en")}
    assert said["Health index"].startswith("25%")
    assert said["Time to limit"] == "1 d – 2 d (90%) until vibration reaches 7.10 mm/s"
    assert {row["name"] for row in evidence.beside(body, "zh")} >= {"健康指数", "距限值时间"}
    assert evidence.beside(BODY, "en") == []


def test_a_rate_is_not_drawn_as_a_limit_on_the_trace_of_its_sensor():
    rate = {
        "sensor_id": 2,
        "feature": "rate",
        "measured": 9.0,
        "limit": 5.0,
        "low": -5.0,
        "high": 5.0,
        "unit": "°C/min",
    }
    assert evidence.limits({"contributions": [rate]}) == []
