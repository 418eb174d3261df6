"""Backtests: files read in the order of time whatever their order, the engine as live, findings judged against the truth."""

import argparse
import itertools
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from anomaly import history as history_module
from anomaly.api import (
    BadConfigFile,
    BadHistoryFile,
    BadResultFile,
    BadTruthFile,
    EngineConfig,
    Episode,
    Layout,
    NoSuchMachine,
    NothingStored,
    Ticket,
    Traces,
    backtest,
    compare,
    judge,
    load_run,
    open_file,
    parse_instant_us,
    read_config,
    read_truth,
    report_page,
    sparkline,
    store_run,
    with_opinions,
    wording,
)
from anomaly.engine import Engine
from anomaly.finding import Change, Finding
from anomaly.history import Stretch, read_copy
from anomaly.plots import Band, Panel, Plot, to_svg
from fettle.commands import backtest as verb
from fettle.model import FaultFamily, Flag, MachineId, Quality, SensorId, Severity, SignalKind
from fettle.settings import Settings
from fettle.wire import READING_DTYPE

MINUTE, HOUR, DAY = 60_000_000, 3_600_000_000, 86_400_000_000
START = parse_instant_us("2026-03-02T00:00:00Z")
UNITS = {"vibration": "mm/s", "temperature": "°C"}


def wide(hours=24 * 5, machines=("P-1", "P-2"), step_s=600, fault_from=None, seed=1):
    """Return a table of two signals a machine; the first machine's vibration doubles from `fault_from` hours on."""
    random = np.random.default_rng(seed)
    n = hours * 3600 // step_s
    ts = START + np.arange(n) * step_s * 1_000_000
    tables = []
    for place, number in enumerate(machines):
        level = np.full(n, 0.4)
        if fault_from is not None and place == 0:
            level[fault_from * 3600 // step_s :] = 0.9
        tables.append(
            pa.table(
                {
                    "time": pa.array(ts, pa.int64()).cast(pa.timestamp("us", tz="UTC")),
                    "site": pa.array(["s1"] * n),
                    "machine": pa.array([number] * n),
                    "vibration": level * np.exp(random.normal(0, 0.03, n)),
                    "temperature": 40 + random.normal(0, 0.3, n),
                }
            )
        )
    return pa.concat_tables(tables)


def long(table):
    """Return a wide table with one row a reading, in the order of sensors."""
    parts = []
    for name, unit in UNITS.items():
        columns = {c: table[c] for c in ("time", "site", "machine")}
        columns |= {"sensor": pa.array([name] * len(table)), "value": table[name]}
        columns |= {"unit": pa.array([unit] * len(table))}
        parts.append(pa.table(columns))
    return pa.concat_tables(parts)


def write(table, path, *, row_group=None):
    if path.suffix == ".parquet":
        pa.parquet.write_table(table, path, row_group_size=row_group)
    else:
        pa.csv.write_csv(table, path)
    return path


def readings_of(history):
    """Return all readings by (machine number, sensor name), in the order they came, and check the stretches."""
    stretches = list(history.stretches())
    assert all(s.start_us <= int(s.readings["ts"].min()) and int(s.readings["ts"].max()) < s.end_us for s in stretches)
    assert all(a.end_us <= b.start_us for a, b in itertools.pairwise(stretches))
    number = {m.machine_id: m.number for m in history.machines}
    rows = np.concatenate([s.readings for s in stretches])
    found = {}
    for sensor in history.sensors:
        mine = rows[rows["sensor_id"] == sensor.sensor_id]
        mine = mine[np.argsort(mine["ts"], kind="stable")]
        found[number[sensor.machine_id], sensor.name] = (mine["ts"].tolist(), mine["value"].tolist())
    return found


def expected_of(table):
    found = {}
    for number in dict.fromkeys(table["machine"].to_pylist()):
        mine = table.filter(pa.compute.equal(table["machine"], number))
        ts = mine["time"].cast(pa.int64()).to_pylist()
        for name in UNITS:
            found[number, name] = (ts, mine[name].to_pylist())
    return found


# -- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
@pytest.mark.parametrize("shape", ["wide", "long"])
@pytest.mark.parametrize("order", ["time", "machine", "shuffled"])
def test_every_layout_and_order_gives_the_same_readings_in_event_time(tmp_path, ending, shape, order, monkeypatch):
    monkeypatch.setattr(history_module, "_AIM", 200)  # many stretches
    table = wide(hours=30)
    rows = table if shape == "wide" else long(table)
    if order == "time":
        rows = rows.sort_by("time")
    elif order == "shuffled":
        rows = rows.take(np.random.default_rng(3).permutation(len(rows)))
    path = write(rows, tmp_path / f"x{ending}", row_group=50)
    history = open_file(path, layout=Layout(units=UNITS))
    assert {(s.name, s.kind, s.unit) for s in history.sensors} == {
        ("vibration", SignalKind.VIBRATION_VELOCITY, "mm/s"),
        ("temperature", SignalKind.TEMPERATURE, "°C"),
    }
    assert (history.start_us, history.end_us) == (START, START + 30 * HOUR - 10 * MINUTE + 1)
    assert len(list(history.stretches())) > 3
    found, expected = readings_of(history), expected_of(table)
    assert found.keys() == expected.keys()
    for key, (ts, values) in expected.items():
        assert found[key][0] == ts
        assert found[key][1] == pytest.approx(values, rel=1e-12)


def test_what_the_simulator_writes_is_read_as_it_is(tmp_path):
    from simulators.api import Fleet, load_scenario, write_readings

    fleet = Fleet(load_scenario("quiet-day"), machines=2)
    start_us = fleet.scenario.start_us
    counts = {}
    for layout in ("long", "wide", "delivered"):
        path = tmp_path / f"{layout}.parquet"
        written = write_readings(fleet, start_us, start_us + 2 * HOUR, path, layout=layout)
        history = open_file(path, layout=Layout(units={"vibration": "mm/s", "temperature": "°C", "current": "A"}))
        assert sum(len(s.readings) for s in history.stretches()) == written
        counts[layout] = {k: v[0] for k, v in readings_of(history).items()}
    assert counts["long"] == counts["wide"]
    assert counts["delivered"].keys() == counts["long"].keys()


def test_a_sorted_file_is_read_without_holding_it_back(tmp_path, monkeypatch):
    monkeypatch.setattr("anomaly.files._ROWS", 100)
    monkeypatch.setattr(history_module, "_AIM", 100)
    monkeypatch.setattr(history_module, "_MOST_HELD", 700)
    ordered = write(wide(hours=100).sort_by("time"), tmp_path / "sorted.parquet", row_group=100)
    history = open_file(ordered, layout=Layout(units=UNITS))
    assert sum(len(s.readings) for s in history.stretches()) == 100 * 6 * 4
    assert history.held <= 700
    apart = write(wide(hours=100), tmp_path / "apart.parquet", row_group=100)
    with pytest.raises(BadHistoryFile, match="sort it by time"):
        list(open_file(apart, layout=Layout(units=UNITS)).stretches())


def test_units_in_brackets_win_and_an_empty_cell_is_no_reading(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text(
        "time;velocity [mm/s];Motor (A);note\n2026-03-02T00:00:00Z;1.5;;ok\n2026-03-02T00:01:00.5Z;1.6;7;ok\n"
    )
    history = open_file(path, layout=Layout(machine="M1"))
    assert [(s.name, s.unit) for s in history.sensors] == [("Motor", "A"), ("velocity", "mm/s")]
    assert [m.number for m in history.machines] == ["M1"]
    assert readings_of(history) == {
        ("M1", "Motor"): ([START + 60_500_000], [7.0]),
        ("M1", "velocity"): ([START, START + 60_500_000], [1.5, 1.6]),
    }


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2026-03-02 00:00:00", "2026-03-02 00:10:00"),
        ("2026-03-02T08:00:00+08:00", "2026-03-02T08:10:00+08:00"),
        ("2026/03/02 00:00:00", "2026/03/02 00:10:00"),
        ("1772409600", "1772410200"),
        ("1772409600000", "1772410200000"),
        ("1772409600000000", "1772410200000000"),
    ],
)
def test_times_are_understood_as_people_write_them(tmp_path, first, second):
    path = tmp_path / "x.csv"
    path.write_text(f"timestamp,x\n{first},1\n{second},2\n")
    (found,) = readings_of(open_file(path)).values()
    assert found == ([START, START + 10 * MINUTE], [1.0, 2.0])


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("x.csv", "when,x\n2026-03-02,1\n", "--time-column"),
        ("x.csv", "time,note\n2026-03-02,good\n", "no column of numbers"),
        ("x.csv", "time,x\n", "no rows"),
        ("x.csv", "time,x\nyesterday,1\n", "'yesterday'"),
        ("x.csv", "time,x\n2026-03-02T00:00:00Z,1\n,2\n", "row 2"),
        ("x.csv", "time,machine,sensor,value\n2026-03-02T00:00:00Z,,v,1\n", "'machine' is empty in row 1"),
        ("x.csv", "time,machine,sensor,value\n2026-03-02T00:00:00Z,A,v,fast\n", "fast"),
        ("x.csv", "", "Empty"),
        ("x.parquet", "no parquet", "cannot be read"),
        ("x.xlsx", "", "its ending"),
    ],
)
def test_a_file_that_cannot_be_read_says_what_to_mend(tmp_path, name, text, says):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(BadHistoryFile, match=re.escape(says)) as problem:
        list(open_file(path).stretches())
    assert str(path) in str(problem.value)


def test_a_missing_file_machine_or_period_is_named(tmp_path):
    with pytest.raises(BadHistoryFile, match="no such file"):
        open_file(tmp_path / "none.csv")
    path = write(wide(hours=2), tmp_path / "x.parquet")
    with pytest.raises(NoSuchMachine, match=r"P-9.*P-1, P-2"):
        open_file(path, numbers=["P-9"])
    with pytest.raises(NothingStored, match="2026-03-02 00:00 to 2026-03-02 01:50"):
        open_file(path, start_us=START + DAY)
    with pytest.raises(BadHistoryFile, match="'when'"):
        open_file(path, layout=Layout(time="when"))


def test_machines_and_bounds_choose_what_is_read(tmp_path):
    path = write(wide(hours=10), tmp_path / "x.parquet")
    history = open_file(path, numbers=["P-2"], start_us=START + HOUR, end_us=START + 2 * HOUR)
    assert {key[0] for key in readings_of(history)} == {"P-2"}
    assert all(len(ts) == 6 and ts[0] == START + HOUR for ts, _ in readings_of(history).values())


def test_a_binary_copy_of_the_database_becomes_readings_taken_as_live():
    row = np.zeros(2, dtype=history_module._COPY_ROW)
    row["fields"], row["sensor_id"], row["quality"], row["value"] = 5, [7, 8], 192, [1.5, np.nan]
    row["flags"], row["ts"] = Flag.HISTORICAL | Flag.LATE, [0, 86_400_000_000]
    found = read_copy(b"PGCOPY\n\xff\r\n\0" + bytes(8) + row.tobytes() + b"\xff\xff")
    assert found["sensor_id"].tolist() == [7, 8]
    assert found["ts"].tolist() == [parse_instant_us("2000-01-01"), parse_instant_us("2000-01-02")]
    assert found["flags"].tolist() == [Flag.LATE, Flag.LATE]
    assert found["value"][0] == 1.5
    assert np.isnan(found["value"][1])
    assert len(read_copy(b"PGCOPY\n\xff\r\n\0" + bytes(8) + b"\xff\xff")) == 0


# -- the run ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A file in which the first machine's vibration doubles after 100 hours of 120."""
    path = tmp_path_factory.mktemp("faulty") / "x.parquet"
    return write(wide(fault_from=100, step_s=1200), path)


@pytest.fixture(scope="module")
def ran(faulty):
    """The backtest of that file under the shipped configuration."""
    return backtest(opened(faulty), [("a", EngineConfig())])


def opened(path):
    return open_file(path, layout=Layout(units=UNITS))


def test_a_backtest_raises_what_the_engine_raises_batch_by_batch(faulty, ran):
    history, done = opened(faulty), ran
    engine = Engine(EngineConfig())
    engine.register(history.machines, history.sensors)
    rows = np.concatenate([s.readings for s in history.stretches()])
    live = []
    for hour in range(120):
        low = START + hour * HOUR
        batch = rows[(rows["ts"] >= low) & (rows["ts"] < low + HOUR)]
        live += engine.fold(batch, low + HOUR)
    assert [(e.change, e.finding.key, e.at_us) for e in done.runs[0].events] == [
        (e.change, e.finding.key, e.at_us) for e in live
    ]
    raised = [t for t in done.runs[0].tickets if t.machine == "P-1"]
    assert [t.finding.fault_family for t in raised] == [FaultFamily.IMBALANCE]
    assert raised[0].sensors == ("vibration",)
    assert 100 <= (raised[0].finding.onset_us - START) / HOUR <= 101
    assert done.samples == 120 * 3 * 4


@pytest.mark.parametrize("aim", [50, 5000])
def test_the_length_of_stretches_changes_nothing(faulty, ran, aim, monkeypatch):
    expected = ran.runs[0].events
    monkeypatch.setattr(history_module, "_AIM", aim)
    found = backtest(opened(faulty), [("a", EngineConfig())]).runs[0].events
    assert [(e.change, e.finding.key, e.at_us) for e in found] == [(e.change, e.finding.key, e.at_us) for e in expected]
    assert found


@pytest.mark.parametrize("aim", [40, 100_000])
def test_a_machine_that_falls_silent_is_noticed_in_event_time_whatever_the_stretch(tmp_path, aim, monkeypatch):
    monkeypatch.setattr(history_module, "_AIM", aim)
    table = wide(hours=60)
    ts = table["time"].cast(pa.int64()).to_numpy()
    away = (np.array(table["machine"].to_pylist()) == "P-1") & (ts >= START + 40 * HOUR) & (ts < START + 50 * HOUR)
    path = write(table.filter(pa.array(~away)), tmp_path / "x.parquet")
    done = backtest(opened(path), [("a", EngineConfig())])
    silent = [e for e in done.runs[0].events if e.finding.detector == "silent"]
    assert {e.finding.evidence["machine"] for e in silent} == {"P-1"}
    raised = [e for e in silent if e.change is Change.RAISED]
    assert len(raised) == 1
    silent_us = raised[0].at_us - (START + 40 * HOUR - 10 * MINUTE)
    assert 0 < silent_us % (10 * MINUTE) <= 3_000_000  # the loop looks every two seconds once so many periods are over
    assert 20 * MINUTE < silent_us < 2 * HOUR


@pytest.mark.parametrize("aim", [40, 100_000])
def test_a_plant_that_falls_silent_as_a_whole_is_noticed_though_no_stretch_holds_it(tmp_path, aim, monkeypatch):
    monkeypatch.setattr(history_module, "_AIM", aim)
    table = wide(hours=96)
    ts = table["time"].cast(pa.int64()).to_numpy()
    away = (ts >= START + 40 * HOUR) & (ts < START + 80 * HOUR)
    path = write(table.filter(pa.array(~away)), tmp_path / "x.parquet")
    done = backtest(opened(path), [("a", EngineConfig())])
    raised = [e for e in done.runs[0].events if e.finding.detector == "silent" and e.change is Change.RAISED]
    assert raised
    assert all(40 * HOUR < e.at_us - START < 42 * HOUR for e in raised)


def test_two_configurations_are_read_once_and_kept_apart(faulty, ran):
    class Once:
        def __init__(self, inner):
            self.inner, self.times = inner, 0

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def stretches(self):
            self.times += 1
            return self.inner.stretches()

    history = Once(opened(faulty))
    deaf = EngineConfig(multiplier=1e9, lowest_multiplier=1e9, highest_multiplier=1e9)
    done = backtest(history, [("now", EngineConfig()), ("deaf", deaf)])
    assert history.times == 1
    first, second = done.runs
    assert first.version != second.version
    alone = ran.runs[0]
    assert [t.finding for t in first.tickets] == [t.finding for t in alone.tickets]
    deviations = [t for t in second.tickets if t.finding.detector == "residual"]
    assert deviations == []
    result = compare(first.tickets, second.tickets)
    assert len(result.only_first) >= 1
    assert result.may_replace is None


def test_traces_hold_lowest_and_highest_of_each_piece():
    sensors = [type("S", (), {"sensor_id": SensorId(i)})() for i in (3, 5)]
    traces = Traces(sensors, start_us=0, end_us=10_000_000)
    rows = np.zeros(4, dtype=READING_DTYPE)
    rows["sensor_id"], rows["ts"], rows["value"] = [3, 3, 5, 3], [100, 900_000, 5, 9_999_999], [2.0, 1.0, 7.0, np.nan]
    traces.add(rows[:2])
    traces.add(rows[2:])
    ts, low, high = traces.of(3, start_us=0, end_us=10_000_000, points=100)
    assert (ts.tolist(), low.tolist(), high.tolist()) == ([500_000], [1.0], [2.0])
    ts, low, high = traces.of(5, start_us=0, end_us=10_000_000, points=1)
    assert (low.tolist(), high.tolist()) == ([7.0], [7.0])
    assert traces.of(5, start_us=20_000_000, end_us=30_000_000, points=5)[0].tolist() == []


# -- judging ---------------------------------------------------------------------------------------------------------


def ticket(hours, *, machine="P-1", family=FaultFamily.BEARING, kind="machine", until=None, key=None):
    raised = START + round(hours * HOUR)
    return Ticket(
        machine,
        None,
        ("vibration",),
        Finding.from_dict(
            {
                "key": key or f"{machine}-{hours}",
                "machine_id": 1,
                "fault_family": family,
                "kind": kind,
                "severity": Severity.LOW,
                "onset_us": raised - HOUR,
                "raised_us": raised,
                "cleared_us": None if until is None else START + round(until * HOUR),
                "detector": "residual",
                "block": "SD",
                "model_version": "x.1",
                "tier": 2,
                "mode": "running",
                "score": 1.5,
                "p_value": None,
                "threshold": 1.0,
                "set_rate": 0.01,
                "sensor_ids": [1],
                "evidence": {"contributions": []},
            }
        ),
    )


def episode(low, high, *, machine="P-1", family=FaultFamily.BEARING, failure=None, **more):
    return Episode(
        machine,
        None,
        family,
        START + low * HOUR,
        START + high * HOUR,
        None if failure is None else START + failure * HOUR,
        **more,
    )


def judged(tickets, episodes, *, hours=240):
    return judge(
        tickets, episodes, machines=[(None, "P-1"), (None, "P-2")], start_us=START, end_us=START + hours * HOUR
    )


def test_the_first_finding_inside_an_episode_finds_it_and_the_others_repeat_it():
    tickets = [ticket(50), ticket(60), ticket(5), ticket(50, machine="P-2")]
    result = judged(tickets, [episode(48, 96, failure=90)])
    (outcome,) = result.outcomes
    assert outcome.ticket is tickets[0]
    assert (outcome.delay_us, outcome.lead_us, outcome.repeats) == (2 * HOUR, 40 * HOUR, 1)
    assert [t.finding.key for t in result.false_tickets] == ["P-1-5", "P-2-50"]
    assert result.healthy_days == pytest.approx((2 * 240 - 48) / 24)
    assert result.false_rate == pytest.approx(2 / 18)
    assert result.leads() == (1, 1)


def test_a_missed_episode_counts_as_infinite_delay_and_lead():
    result = judged([ticket(50)], [episode(48, 96, failure=90), episode(48, 96, machine="P-2", failure=90)])
    assert result.found == 1
    assert result.median_delay_us() == np.inf
    assert result.median_lead_us() == -np.inf
    assert result.leads() == (1, 2)


def test_the_interval_of_the_rate_is_exact():
    """Garwood's interval for 2 events: 0.242 to 7.225; for none: 0 to 3.689."""
    two = judged([ticket(5), ticket(6)], [])
    assert two.false_interval() == pytest.approx((0.2422 / 20, 7.2247 / 20), rel=1e-3)
    assert judged([], []).false_interval() == pytest.approx((0.0, 3.6889 / 20), rel=1e-3)


def test_overlapping_episodes_are_told_apart_by_kind_and_their_time_counts_once():
    sensor = episode(48, 96, family=FaultFamily.SENSOR_FAULT)
    result = judged([ticket(50, family=FaultFamily.SENSOR_FAULT, kind="sensor")], [episode(24, 72), sensor])
    assert [o.ticket is not None for o in result.outcomes] == [False, True]
    assert result.healthy_days == pytest.approx((480 - 72) / 24)


def test_a_right_family_is_counted_apart():
    result = judged([ticket(50, family=FaultFamily.OVERHEATING)], [episode(48, 96)])
    assert [o.is_family_right for o in result.outcomes] == [False]
    result = judged([ticket(50), ticket(30)], [episode(48, 96)])
    assert [o.is_family_right for o in result.outcomes] == [True]


def test_what_is_raised_before_the_judged_period_counts_nowhere():
    result = judge([ticket(5)], [], machines=[(None, "P-1")], start_us=START + 10 * HOUR, end_us=START + 34 * HOUR)
    assert result.false_tickets == ()
    assert result.healthy_days == 1.0


def test_a_version_may_replace_another_if_it_loses_nothing_and_stays_quiet():
    truth = [episode(48, 96), episode(100, 120, machine="P-2")]
    base = [ticket(50, until=90), ticket(101, machine="P-2", until=110)]
    noisy = [*base, ticket(5, until=6), ticket(8, until=9)]
    poor = base[:1]

    def verdict(first, second):
        pair = (judged(first, truth), judged(second, truth))
        return compare(first, second, pair)

    assert verdict(base, base).may_replace is True
    assert verdict(base, noisy).may_replace is False
    assert verdict(noisy, base).may_replace is True
    lost = verdict(base, poor)
    assert lost.may_replace is False
    assert lost.lost == ("P-2 ",)
    assert (len(lost.both), len(lost.only_first), len(lost.only_second)) == (1, 1, 0)


# -- what people give ------------------------------------------------------------------------------------------------


def test_a_configuration_file_changes_the_fields_it_names(tmp_path):
    path = tmp_path / "c.toml"
    path.write_text("multiplier = 6\nfirst_fit_steps = 40\nfit_hours = [1, 2]\n")
    found = read_config(path, base=EngineConfig(smooth_steps=3.0))
    assert found == EngineConfig(smooth_steps=3.0, multiplier=6.0, first_fit_steps=40, fit_hours=(1.0, 2.0))
    assert found.digest() != EngineConfig().digest()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("multiplyer = 6", "did you mean multiplier"),
        ("multiplier = 'high'", "multiplier = 'high': expected a number"),
        ("multiplier = -1", "0 or more"),
        ("multiplier = nan", "expected a number"),
        ("multiplier = true", "expected a number"),
        ("first_fit_steps = 2.5", "a whole number"),
        ("fit_hours = 3", "a list of numbers"),
        ("fit_hours = []", "a list of numbers"),
        ("multiplier", "cannot be read"),
    ],
)
def test_a_wrong_configuration_names_the_field_and_the_remedy(tmp_path, text, says):
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(BadConfigFile, match=re.escape(says)):
        read_config(path, base=EngineConfig())


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("no json", "cannot be read"),
        ("[]", "no list `episodes`"),
        ('{"episodes": [{"onset": "2026-03-02"}]}', "episode 1: `machine` is missing"),
        ('{"episodes": [{"machine": "A"}]}', "`onset` is None"),
        ('{"episodes": [{"machine": "A", "onset": "soon"}]}', "'soon'"),
        (
            '{"episodes": [{"machine": "A", "onset": "2026-03-02", "family": "rust"}]}',
            "'rust', expected one of bearing",
        ),
    ],
)
def test_a_wrong_truth_file_names_the_entry_and_the_remedy(tmp_path, body, says):
    path = tmp_path / "t.json"
    path.write_text(body)
    with pytest.raises(BadTruthFile, match=re.escape(says)):
        read_truth(path)


def test_the_earlier_of_failure_and_limit_is_when_it_was_too_late(tmp_path):
    path = tmp_path / "t.json"
    body = {"machine": "A", "onset": "2026-03-02", "failure": "2026-03-05", "limit": "2026-03-04", "end": "2026-03-06"}
    path.write_text(json.dumps({"episodes": [body], "machines": [{"machine": "A", "rated_current_a": 12.0}]}))
    truth = read_truth(path)
    assert truth.episodes[0].failure_us == parse_instant_us("2026-03-04")
    assert truth.plates == {"A": {"rated_current_a": 12.0}}


def test_a_stored_run_compares_with_a_later_one_of_the_same_period_only(faulty, tmp_path):
    history = opened(faulty)
    done = backtest(history, [("a", EngineConfig())])
    path = tmp_path / "r.json"
    store_run(done.runs[0], history, path)
    again = load_run(path, history)
    assert [t.finding for t in again.tickets] == [t.finding for t in done.runs[0].tickets]
    assert compare(again.tickets, done.runs[0].tickets).only_first == ()
    with pytest.raises(BadResultFile, match="begins at another time"):
        load_run(path, open_file(faulty, start_us=START + HOUR))
    with pytest.raises(BadResultFile, match="other machines"):
        load_run(path, open_file(faulty, numbers=["P-1"]))
    path.write_text("{}")
    with pytest.raises(BadResultFile, match="cannot be read"):
        load_run(path, history)


# -- pages and plots ---------------------------------------------------------------------------------------------------


def drawn(**more):
    ts = START + np.arange(200) * MINUTE
    ts[100:] += 2 * HOUR
    panel = Panel(
        "<v>", "mm/s", "vibration_velocity", ts, np.full(200, 1.0), np.full(200, 2.0),
        [Band(START, START + HOUR, 0.5, 1.5)], 2.5,
    )  # fmt: skip
    return Plot(
        START, START + 6 * HOUR, [panel], open_spans=[(START + HOUR, START + 2 * HOUR)], marks=[START + HOUR], **more
    )


def test_a_plot_breaks_its_trace_at_holes_and_escapes_names():
    import xml.etree.ElementTree as ET

    root = ET.fromstring(to_svg(drawn(), title="a & b"))
    space = "{http://www.w3.org/2000/svg}"
    by_class = [e.get("class") for e in root.iter() if e.get("class")]
    assert by_class.count("trace") == 2
    assert {"band", "limit", "open", "mark"} <= set(by_class)
    assert "<v> [mm/s]" in [t.text for t in root.iter(f"{space}text")]
    numbers = [float(v) for v in re.findall(r"[\d.]+", "".join(p.get("d") for p in root.iter(f"{space}path")))]
    assert min(numbers) >= 0
    assert max(numbers) <= 860


def test_an_empty_plot_is_still_a_drawing():
    empty = np.zeros(0)
    plot = Plot(START, START + HOUR, [Panel("v", "", "other", empty.astype(np.int64), empty, empty)])
    assert to_svg(plot, title="x").startswith("<svg")


@pytest.mark.parametrize(
    ("values", "expected"),
    [([1, 2, 3, 4], "▁▃▆█"), ([5, 5], "▄▄"), ([np.nan, 1, 2], "·▁█"), ([np.nan], "·"), ([], "")],
)
def test_sparklines(values, expected):
    assert sparkline(values, width=10) == expected


def test_the_page_says_the_same_in_both_languages_and_needs_no_network(faulty):
    history = opened(faulty)
    traces = Traces(history.sensors, start_us=history.start_us, end_us=history.end_us)
    done = backtest(history, [("now", EngineConfig()), ("b<i>", EngineConfig(multiplier=20.0))], traces=traces)
    truth = [Episode("P-1", "s1", FaultFamily.IMBALANCE, START + 100 * HOUR, START + 120 * HOUR, name="loose <bolt>")]
    judgements = [
        judge(r.tickets, truth, machines=[("s1", "P-1"), ("s1", "P-2")], start_us=START, end_us=START + 120 * HOUR)
        for r in done.runs
    ]
    page = report_page(done, judgements, is_known=True)
    assert page.count('<span lang="en">') == page.count('<span lang="zh">') > 20
    assert "imbalance, misalignment or looseness" in page
    assert "不平衡、不对中或松动" in page
    assert 'class="trace"' in page
    assert 'class="band"' in page
    assert "loose &lt;bolt&gt;" in page
    assert "b&lt;i&gt;" in page
    assert "<bolt>" not in page
    assert re.findall(r"""(?:src|href)=["'](?!#)""", page) == []
    assert re.findall(r"https?://(?!www\.w3\.org)", page) == []


def test_durations_and_p_values_in_words():
    assert wording.duration(90 * MINUTE, "en") == "1 h 30 min"
    assert wording.duration(-2 * DAY, "zh") == "−2 天"
    assert wording.duration(5_000_000, "en") == "5 s"
    assert wording.duration(np.inf, "en") == "missed"
    assert "no probability of a fault" in wording.p_value(1e-4, "en")
    assert "1/10,000" in wording.p_value(1e-4, "zh")
    assert wording.p_value(None, "en") == "not calibrated yet"


def test_every_family_mode_and_check_has_words_in_both_languages():
    from anomaly.incidents import CHECKS
    from anomaly.state import Mode, Rule, Tier

    assert {f.value for f in FaultFamily} <= set(wording.FAMILIES)
    assert {c for checks in CHECKS.values() for c in checks} <= set(wording.CHECKS)
    assert {m.name.lower() for m in Mode} <= set(wording.MODES)
    assert {str(int(t)) for t in Tier} <= set(wording.TIERS)
    assert {r.name.lower() for r in Rule} - {"deviation"} <= set(wording.FEATURES)
    for table in (wording.FAMILIES, wording.CHECKS, wording.MODES, wording.TIERS, wording.FEATURES, wording.ZONES):
        for words in table.values():
            assert re.search(r"[\u4e00-\u9fff]", words.zh)


# -- the verb --------------------------------------------------------------------------------------------------------


def run_verb(*words):
    parser = argparse.ArgumentParser()
    verb.add(parser.add_subparsers())
    args = parser.parse_args(["backtest", *map(str, words)])
    return args.run(args, Settings(_env_file=None))


def test_the_verb_prints_findings_lead_delay_and_comparison(faulty, tmp_path, capsys):
    truth = tmp_path / "t.json"
    body = {"machine": "P-1", "family": "imbalance", "fault": "bolt", "onset": "2026-03-06T04:00:00Z", "failure": "2026-03-06T20:00:00Z"}  # fmt: skip
    truth.write_text(json.dumps({"episodes": [body]}))
    other = tmp_path / "deaf.toml"
    other.write_text("multiplier = 1e9\nlowest_multiplier = 1e9\nhighest_multiplier = 1e9\n")
    report = tmp_path / "r.html"
    result = tmp_path / "r.json"
    assert run_verb(faulty, "--truth", truth, "--against", other, "--report", report, "--out", result) == 0
    said = capsys.readouterr().out
    for expected in ("│ P-1", "imbalance", "found bolt after", "1 of 1", "missed", "may NOT replace", "lost: P-1 bolt"):
        assert expected in said, expected
    assert report.read_text(encoding="utf-8").startswith("<!doctype html>")
    assert run_verb(faulty, "--truth", truth, "--against", result) == 0
    assert "may replace" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--from", "monday"], "--from monday: expected an instant"),
        (["--failure-at", "P-1=soon"], "--failure-at soon"),
        (["--unit", "vibration"], "SENSOR=UNIT"),
        (["--report", "x.pdf"], "ends in .html"),
        (["--against", "x.yaml"], "(.toml)"),
        (["--baseline", "long"], "long"),
        (["--name-plates"], "--truth"),
    ],
)
def test_wrong_options_are_named_with_their_remedy(faulty, words, says, capsys):
    assert run_verb(faulty, *words) == 2
    assert says in capsys.readouterr().err


def test_a_failure_of_one_of_several_machines_needs_its_number(faulty):
    with pytest.raises(verb.WhichMachine, match="--failure-at P-1=TIME"):
        run_verb(faulty, "--failure-at", "2026-03-06T20:00:00Z")
    assert run_verb(faulty, "--failure-at", "P-1=2026-03-06T20:00:00Z") == 0


def test_stretch_and_quality_of_a_file_reading(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("time,machine,sensor,value,unit\n2026-03-02T00:00:00Z,A,v,,mm/s\n2026-03-02T00:00:10Z,A,v,2,mm/s\n")
    (stretch,) = open_file(path).stretches()
    assert isinstance(stretch, Stretch)
    assert stretch.readings["quality"].tolist() == [Quality.BAD, Quality.GOOD]
    assert MachineId(1) == open_file(path).machines[0].machine_id


def test_second_opinions_of_a_backtest_come_from_its_traces(faulty):
    history = opened(faulty)
    traces = Traces(history.sensors, start_us=history.start_us, end_us=history.end_us)
    done = backtest(history, [("a", EngineConfig())], traces=traces)
    told = []
    with_opinions(done, on_progress=lambda n, total: told.append((n, total)))
    (ticket,) = [t for t in done.runs[0].tickets if t.machine == "P-1"]
    said = {one["model"]: one for one in ticket.finding.evidence["second_opinions"]}
    assert set(said) == {"isolation_forest", "pca", "gradient_boosting"}
    assert said["pca"]["agrees"]
    assert told[-1] == (len(done.runs[0].tickets), len(done.runs[0].tickets))
    page = report_page(
        done, [judge([], [], machines=[("s1", "P-1")], start_us=START, end_us=START + HOUR)], is_known=False
    )
    assert "3 of 3 agree: isolation forest" in page or "2 of 3 agree: isolation forest" in page
    assert "主成分分析 100.0" in page
