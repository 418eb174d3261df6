"""Who publishes, and why."""

import math

import pytest

from simulators.api import Fleet, choose_client, expected_rate, load_scenario, machines_for_rate
from simulators.clients import ClientUnknown


@pytest.mark.parametrize(
    ("asked", "rate", "load", "name", "because"),
    [
        ("auto", 20, False, "paho", ""),
        ("auto", 2000, False, "paho", ""),
        ("auto", 2001, False, "batch", "2,001 messages/s are expected and paho is used up to 2,000"),
        ("auto", math.inf, False, "batch", "messages go out as fast as the broker takes them"),
        ("auto", 20, True, "batch", "load is to be limited by the broker, not by the client"),
        ("paho", 20, False, "paho", ""),
        ("paho", 9000, False, "paho", "it was asked for"),
        ("paho", 20, True, "paho", "it was asked for"),
        ("batch", 20, False, "batch", "it was asked for"),
    ],
)
def test_paho_publishes_where_it_keeps_up(asked, rate, load, name, because):
    choice = choose_client(asked, rate=rate, load=load)
    assert (choice.name, choice.because) == (name, because)


def test_an_unknown_client_is_refused():
    with pytest.raises(ClientUnknown, match="'gmqtt'; choose one of auto, paho, batch"):
        choose_client("gmqtt", rate=1)


@pytest.mark.parametrize(("name", "rate"), [("fettle", 15), ("object", 5), ("array", 0.5), ("line", 5)])
def test_the_rate_of_a_fleet_is_known_beforehand(name, rate):
    scenario = load_scenario("quiet-day").with_period(1.0)
    assert len(scenario.signals) == 3
    fleet = Fleet(scenario, machines=5)
    assert expected_rate(fleet, payload_format=name, speed=1) == pytest.approx(rate)
    assert expected_rate(fleet, payload_format=name, speed=60) == pytest.approx(60 * rate)
    assert expected_rate(fleet, payload_format=name, speed=0) == math.inf
    assert machines_for_rate(rate, period_us=fleet.period_us, signals=3, payload_format=name) == 5


def test_the_demo_goes_on_live_through_paho():
    fleet = Fleet(load_scenario("demo"))
    assert choose_client(rate=expected_rate(fleet, payload_format="fettle", speed=60)).name == "paho"
