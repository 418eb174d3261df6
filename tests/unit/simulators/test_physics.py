"""The healthy machine: current from load, heat from losses, vibration from load and speed, start and stop."""

from dataclasses import replace

import numpy as np
import pytest

from simulators.api import Fleet, State, load_scenario
from simulators.machine import builtin_classes
from simulators.physics import Climate, outdoor_c, quantise
from simulators.production import DAY_S
from simulators.scenario import MachineSpec

HOUR = 3_600_000_000
DAY = 24 * HOUR


def steady_fleet(class_name, load, **changes):
    """Return one machine that runs at one load without noise, stops or weather."""
    kind = replace(
        builtin_classes()[class_name],
        load_levels=(load,),
        load_wander=0,
        load_jitter=0,
        idle_per_day=0,
        breakdowns_per_1000_h=0,
        setup_min=0,
        hall_coupling=0,
        temperature_noise_k=0,
        vibration_noise=0,
        current_noise=0,
        spread=0,
        calendar="continuous",
        temperature_step_c=0,
        vibration_step_mm_s=0,
        current_step_a=0,
        **changes,
    )
    scenario = load_scenario("quiet-day")
    plant = scenario.plants[0]
    spec = MachineSpec(number="X", title="X", title_zh="X", kind=kind)
    line = replace(plant.lines[0], machines=(spec,))
    return Fleet(replace(scenario, plants=(replace(plant, lines=(line,)),)))


def means(fleet, signals=("temperature", "vibration", "current")):
    start = fleet.scenario.start_us
    return {s.signal: float(np.mean(s.values)) for s in fleet.generate(start, start + DAY, signals=signals)}


@pytest.mark.parametrize("name", sorted(builtin_classes()))
@pytest.mark.parametrize("load", [0.3, 0.7, 1.0])
def test_steady_state_of_every_class(name, load):
    fleet = steady_fleet(name, load)
    kind = fleet.machines[0].kind
    found = means(fleet)
    share2 = kind.no_load_share**2 + (1 - kind.no_load_share**2) * load**2
    assert found["current"] == pytest.approx(kind.current_a * share2**0.5, rel=1e-6)
    rise = kind.rise_k * (kind.idle_loss_share + (1 - kind.idle_loss_share) * share2)
    assert found["temperature"] == pytest.approx(21 + rise, abs=0.05)
    velocity = kind.vibration_mm_s * (1 - kind.vibration_load_share * (1 - load))
    assert found["vibration"] == pytest.approx(velocity + kind.vibration_floor_mm_s, rel=0.02)


def test_rated_load_draws_rated_current():
    assert means(steady_fleet("pump", 1.0))["current"] == pytest.approx(builtin_classes()["pump"].current_a)


def test_fixed_speed_slips_and_an_inverter_follows_the_load():
    pump, fan = (means(steady_fleet(c, 0.5), ("speed",))["speed"] for c in ("pump", "fan"))
    assert pump == pytest.approx(1480 * (1 + 0.015 * 0.5), abs=0.5)
    assert fan == pytest.approx(1450 * 0.8, abs=0.5)


def stop_between(fleet, start_h, end_h):
    from simulators.disturbances import Disturbance, Where

    start = fleet.scenario.start_us
    stop = Disturbance(
        kind="planned_stop",
        where=Where(),
        start_us=start + int(start_h * HOUR),
        end_us=start + int(end_h * HOUR),
        size=1.0,
        delay_s=0.0,
    )
    return Fleet(replace(fleet.scenario, disturbances=(stop,)), period_us=1_000_000)


def test_inrush_after_a_stop_decays_to_running_current():
    fleet = stop_between(steady_fleet("pump", 0.8), 8, 10)
    start = fleet.scenario.start_us
    (series,) = fleet.generate(start + 10 * HOUR - 60_000_000, start + 10 * HOUR + 60_000_000, signals=("current",))
    kind = fleet.machines[0].kind
    running = series.values[-1]
    assert series.values[:55] == pytest.approx(np.full(55, kind.standby_a), rel=0.3)
    assert series.values.max() > 4 * kind.current_a
    first = int(np.argmax(series.values))
    assert 59 <= first <= 61
    assert series.values[first + 13] == pytest.approx(running, rel=0.05)
    assert np.all(np.diff(series.values[first : first + 15]) < 0)


def test_an_inverter_has_no_inrush():
    fleet = stop_between(steady_fleet("fan", 0.8), 8, 10)
    start = fleet.scenario.start_us
    (series,) = fleet.generate(start + 9 * HOUR, start + 11 * HOUR, signals=("current",))
    assert series.values.max() < fleet.machines[0].kind.current_a


def test_time_constants_on_and_off():
    fleet = stop_between(steady_fleet("pump", 0.8), 6, 12)
    machine = fleet.machines[0]
    plan = fleet.day_plan(machine, fleet.scenario.start_us // DAY)
    rise = plan.temperature_c - plan.ambient_c
    hot = rise[359]
    tau_off, tau_on = machine.kind.tau_off_min, machine.kind.tau_min
    assert rise[360 + int(tau_off)] == pytest.approx(hot * np.exp(-1), rel=0.03)
    cold = rise[720]
    assert rise[720 + int(tau_on)] == pytest.approx(hot - (hot - cold) * np.exp(-1), rel=0.03)


def test_a_planned_speed_change_slows_the_shaft_and_calms_it():
    from simulators.disturbances import Disturbance, Where

    fleet = steady_fleet("fan", 0.8)
    start = fleet.scenario.start_us
    slow = Disturbance(kind="speed_change", where=Where(), start_us=start, end_us=start + DAY, size=0.7, delay_s=0.0)
    before, after = (
        means(f, ("speed", "vibration")) for f in (fleet, Fleet(replace(fleet.scenario, disturbances=(slow,))))
    )
    assert after["speed"] / before["speed"] == pytest.approx(0.7, rel=0.01)
    assert after["vibration"] < 0.7 * before["vibration"]


@pytest.mark.parametrize("southern", [False, True])
def test_outdoor_temperature_has_season_and_day(southern):
    climate = Climate(mean_c=15, season_c=10, day_c=5, weather_c=0, southern=southern)
    year = np.arange(0, 365 * DAY_S, 3600)  # 1970
    t = outdoor_c(climate, 0.0, np.random.default_rng(1), year)
    july, january = t[181 * 24 : 212 * 24].mean(), t[: 31 * 24].mean()
    assert (july - january > 15) is not southern
    days = t[: 24 * 360].reshape(-1, 24)
    assert set(days.argmax(axis=1)) <= {14, 15, 16}
    assert days.max(axis=1) - days.min(axis=1) == pytest.approx(np.full(360, 10), abs=0.6)


def test_machines_of_a_class_differ_and_stay_in_their_range():
    fleet = Fleet(load_scenario("power-dip"), machines=150)
    levels = [m.vibration_mm_s for m in fleet.machines]
    kind = fleet.machines[0].kind
    assert 0.15 < np.std(np.log(levels)) < 0.25
    assert max(levels) < 1.6 * kind.vibration_mm_s
    assert len({m.phase_us for m in fleet.machines}) > 140


@pytest.mark.parametrize(("step", "expected"), [(0.1, 40.3), (0.01, 40.27), (0.25, 40.25), (0.3, 40.2), (0, 40.2712)])
def test_quantise(step, expected):
    assert quantise(np.array([40.2712]), step)[0] == pytest.approx(expected, abs=1e-12)


def test_values_have_the_resolution_of_the_sensor():
    scenario = load_scenario("quiet-day")
    for series in Fleet(scenario).generate(scenario.start_us, scenario.start_us + DAY):
        digits = {"temperature": 1, "vibration": 2, "current": 2}[series.signal]
        np.testing.assert_array_equal(series.values, np.round(series.values, digits))


def test_off_machines_are_quiet_and_draw_standby_current():
    scenario = load_scenario("quiet-day").with_signals(("state", "vibration", "current"))
    fleet = Fleet(scenario)
    for machine in fleet.machines:
        found = {
            s.signal: s.values for s in fleet.generate(scenario.start_us, scenario.start_us + DAY, machines=(machine,))
        }
        off = ~np.isin(found["state"], (State.RUNNING, State.IDLE))
        assert (found["vibration"][off] < 0.1).all()
        assert (found["current"][off] < 0.1).all()
        assert (found["current"][~off] > 0.2 * machine.rated_current_a).all()
