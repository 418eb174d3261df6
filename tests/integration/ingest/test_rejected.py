"""Refused messages are listed, shown, and read again once the reason is gone: stored once, and then gone from the list."""

import psycopg
import pytest

from fettle.cli import main
from ingest.api import Choice, count_rejected, list_rejected, retry_rejected

GOOD = "fettle/default/s1/m1/x"
RULES = """
[[rule]]
topic = "gw7/{site}/{machine}/{sensor}"
format = "json"
"""
STORED = "SELECT m.number, s.name, r.value FROM reading r JOIN sensor s ON s.id = r.sensor_id JOIN machine m ON m.id = s.machine_id ORDER BY 1, 2, 3"


@pytest.fixture
async def refused(plain_database, mosquitto, collecting, publish, reading):
    """A collector has refused five messages and stored two."""
    messages = [
        (GOOD, reading(1)),
        ("gw7/s1/m7/temp", reading(7, unit="Cel")),
        ("gw7/s1/m7/temp", reading(8, n=1, unit="Cel")),
        ("gw7/s1/m7/temp", b"{broken"),
        (GOOD, b"\xff\x1b[2J"),
        (GOOD, b'{"ts":1,"value":[[[[[[[[[[1]]]]]]]]]]}'),
        (GOOD, reading(2, n=1)),
    ]
    async with collecting(plain_database, mosquitto, collector_topics=["fettle/#", "gw7/#"]) as running:
        await publish(mosquitto, messages)
        await running.settle(len(messages))
        assert running.collector.counters.messages.rejected == 5
    return plain_database


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.toml"
    path.write_text(RULES)
    return path


def test_they_are_counted_and_chosen(refused):
    assert {pile.reason: pile.messages for pile in count_rejected(refused.url, Choice())}["no_rule"] == 3
    assert list_rejected(refused.url, Choice(topic="gw7/"), most=2)[0].payload == b"{broken"
    newest = list_rejected(refused.url, Choice(), most=1)[0]
    assert list_rejected(refused.url, Choice(ids=[newest.id]), most=5) == [newest]
    assert count_rejected(refused.url, Choice(reason="no_rule", topic="fettle/")) == []
    assert count_rejected(refused.url, Choice(since=newest.received_at)) != []


def test_a_corrected_rule_gets_them_stored_once(refused, settings_for, rules, rows):
    settings = settings_for(topic_rules=rules)
    trial = retry_rejected(settings, url=refused.url, choice=Choice(), is_trial=True)
    assert (trial.messages, trial.accepted, trial.refused, trial.stored) == (5, 2, 3, 0)
    assert len(rows(refused, "SELECT 1 FROM rejected_message")) == 5, "a trial changes nothing"
    done = retry_rejected(settings, url=refused.url, choice=Choice(reason="no_rule"))
    assert (done.messages, done.accepted, done.refused, done.stored) == (3, 2, 1, 2)
    assert done.reasons == {"bad_syntax": 1}
    assert rows(refused, STORED) == [("m1", "x", 1.0), ("m1", "x", 2.0), ("m7", "temp", 7.0), ("m7", "temp", 8.0)]
    left = list_rejected(refused.url, Choice(), most=10)
    assert {m.payload for m in left} == {b"{broken", b"\xff\x1b[2J", b'{"ts":1,"value":[[[[[[[[[[1]]]]]]]]]]}'}
    assert len(left) == 3, "a message that is refused again is not written again"
    again = retry_rejected(settings, url=refused.url, choice=Choice())
    assert (again.accepted, again.stored, again.refused) == (0, 0, 3)


def test_what_was_stored_before_a_crash_is_not_stored_twice(refused, settings_for, rules, rows):
    """The process dies between the commit of the readings and the removal of the messages."""
    kept = list_rejected(refused.url, Choice(), most=10)
    settings = settings_for(topic_rules=rules)
    retry_rejected(settings, url=refused.url, choice=Choice())
    with psycopg.connect(refused.url) as conn:
        for message in kept[-2:]:
            conn.execute(
                "INSERT INTO rejected_message (received_at, topic, payload, reason) VALUES (%s, %s, %s, 'no_rule')",
                (message.received_at, message.topic, message.payload),
            )
    done = retry_rejected(settings, url=refused.url, choice=Choice(topic="gw7/"))
    assert (done.stored, done.duplicates, done.accepted) == (0, 2, 2)
    assert len(rows(refused, STORED)) == 4


def test_a_time_stamp_that_was_too_far_ahead_may_be_past_now(plain_database, settings_for, rows):
    with psycopg.connect(plain_database.url) as conn:
        conn.execute(
            "INSERT INTO rejected_message (received_at, topic, payload, reason) "
            "VALUES (now() - interval '1 day', %s, %s, 'future')",
            (GOOD.encode(), b'{"ts":1767607200000,"value":3.5,"unit":"A"}'),
        )
    done = retry_rejected(settings_for(), url=plain_database.url, choice=Choice(reason="future"))
    assert (done.accepted, done.stored) == (1, 1)
    assert rows(plain_database, STORED) == [("m1", "x", 3.5)]


async def test_a_wrong_unit_stays_refused_over_a_restart_and_a_second_try(
    plain_database, mosquitto, collecting, publish, reading, settings_for, rows
):
    """A new process knows no sensor; nor does a second try. Neither may store a temperature as a pressure."""
    wrong = (GOOD, reading(20, n=1, unit="Cel"))
    for n, messages in enumerate(([(GOOD, reading(1, unit="bar"))], [wrong])):
        async with collecting(plain_database, mosquitto) as running:
            await publish(mosquitto, messages)
            await running.settle(1)
            assert running.collector.counters.readings.rejected == n
    done = retry_rejected(settings_for(), url=plain_database.url, choice=Choice())
    assert (done.accepted, done.refused, done.reasons) == (0, 1, {"unit_mismatch": 1})
    assert rows(plain_database, STORED) == [("m1", "x", 1.0)]
    assert [(m.payload, m.reason) for m in list_rejected(plain_database.url, Choice(), most=5)] == [
        (wrong[1], "unit_mismatch")
    ]


async def test_what_a_message_without_a_time_had_stored_is_not_stored_again(
    plain_database, mosquitto, collecting, publish, reading, settings_for, rows
):
    """Of each message one reading was stored, under the moment it came; the other was refused."""
    messages = [("fettle/default/s1/m1", b'{"a":%d,"b":%d}' % (n, n)) for n in range(5)]
    async with collecting(plain_database, mosquitto, collector_max_sensors=1) as running:
        await publish(mosquitto, [("fettle/default/s1/m1/a", reading(9, unit="A"))])
        await running.settle(1)
        await publish(mosquitto, messages)
        await running.settle(6)
    before = rows(plain_database, "SELECT ts FROM reading WHERE flags = 1 ORDER BY ts")
    done = retry_rejected(settings_for(), url=plain_database.url, choice=Choice())
    assert (done.messages, done.accepted, done.stored, done.duplicates) == (5, 5, 5, 5)
    by_name = "SELECT ts FROM reading r JOIN sensor s ON s.id = r.sensor_id WHERE s.name = %s AND flags = 1 ORDER BY ts"
    assert rows(plain_database, by_name, "a") == rows(plain_database, by_name, "b") == before


def test_sparkplug_messages_are_left_alone(plain_database, settings_for):
    with psycopg.connect(plain_database.url) as conn:
        conn.execute(
            "INSERT INTO rejected_message (received_at, topic, payload, reason) "
            "VALUES (now(), 'spBv1.0/g/NDATA/e', 'x', 'unknown_alias')"
        )
    done = retry_rejected(settings_for(), url=plain_database.url, choice=Choice())
    assert (done.messages, done.left_alone, done.refused) == (1, 1, 0)


def test_the_command(refused, rules, monkeypatch, tmp_path, capsysbinary):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FETTLE_DATABASE_URL", refused.url)
    monkeypatch.setenv("FETTLE_TOPIC_RULES", str(rules))
    assert main(["rejected", "list", "--last", "10"]) == 0
    told = capsysbinary.readouterr().out.decode()
    assert "3 no_rule" in told
    assert "gw7/s1/m7/temp" in told
    assert "\x1b" not in told, "a payload must not talk to the terminal"
    number = list_rejected(refused.url, Choice(reason="no_rule"), most=1)[0].id
    assert main(["rejected", "show", str(number)]) == 0
    assert capsysbinary.readouterr().out == b"{broken"
    assert main(["rejected", "show", "999999"]) == 1
    assert "no rejected message 999999" in capsysbinary.readouterr().err.decode()
    assert main(["rejected", "replay", "--check"]) == 0
    assert "2 can be read" in capsysbinary.readouterr().out.decode()
    assert main(["rejected", "replay", "--reason", "no_rule"]) == 0
    assert "2 accepted, 1 refused again; 2 readings stored" in capsysbinary.readouterr().out.decode()
    assert main(["rejected", "list", "--reason", "no_rule", "--topic", "nowhere"]) == 0
    assert "no rejected messages" in capsysbinary.readouterr().out.decode()
