"""The truth file and the files of readings."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from simulators.api import Fleet, deliveries, episodes, load_scenario, truth, write_readings, write_truth
from simulators.files import FileKindUnknown
from simulators.recording import read_recording

DAY = 86_400_000_000


def test_episodes_tell_who_what_and_when():
    scenario = load_scenario("bearing-wear")
    start, end = scenario.start_us, scenario.end_us
    found = {e.machine: e for e in episodes(Fleet(scenario), start, end)}
    pump = found["P-102"]
    assert (pump.kind, pump.family, pump.fault, pump.signals[0]) == ("machine", "bearing", "bearing_outer", "vibration")
    assert (pump.onset_us - start) / DAY == 10
    assert (pump.failure_us - start) / DAY == 22
    assert pump.end_us == pump.failure_us + 9 * 3_600_000_000
    assert found["C-602"].failure_us == start + 26 * DAY
    assert found["C-602"].end_us == end


def test_an_episode_outside_the_run_is_none():
    scenario = load_scenario("bearing-wear")
    assert episodes(Fleet(scenario), scenario.start_us, scenario.start_us + 9 * DAY) == []


def test_the_limit_is_where_the_machine_really_passes_it():
    scenario = load_scenario("bearing-wear")
    fleet = Fleet(scenario)
    episode = next(e for e in episodes(fleet, scenario.start_us, scenario.end_us) if e.limit_us)
    machine = fleet.machine(episode.machine)
    series = next(
        fleet.generate(episode.limit_us - DAY, episode.limit_us + DAY, machines=(machine,), signals=("vibration",))
    )
    trip = machine.kind.iso_trip_mm_s
    before = series.values[series.times < episode.limit_us]
    after = series.values[(series.times >= episode.limit_us) & (series.times < episode.limit_us + DAY)]
    assert (before > 1.3 * trip).mean() < 0.01
    assert (after > trip).mean() > 0.3


def test_sensor_faults_of_one_cause_are_one_episode():
    scenario = load_scenario("sensor-faults")
    found = episodes(Fleet(scenario), scenario.start_us, scenario.end_us)
    assert len(found) == 10
    skew = next(e for e in found if e.fault == "clock_skew")
    assert (skew.kind, skew.signals) == ("sensor", ("temperature", "vibration", "current"))


def test_severity_in_the_file_is_that_of_the_fault(tmp_path):
    scenario = load_scenario("cooling-loss")
    fleet = Fleet(scenario)
    path = tmp_path / "truth.json"
    write_truth(fleet, scenario.start_us, scenario.end_us, path)
    report = json.loads(path.read_text(encoding="utf-8"))
    assert report == truth(fleet, scenario.start_us, scenario.end_us)
    cooler = next(e for e in report["episodes"] if e["machine"] == "K-302")
    severity = [v for _, v in cooler["severity"]]
    assert severity[0] == 0
    assert severity == sorted(severity)
    assert severity[-1] == pytest.approx(11 / 18, abs=0.01)  # linear, 11 days of 18
    assert len(report["machines"]) == 12


def test_disturbances_are_in_the_file():
    scenario = load_scenario("nuisance")
    report = truth(Fleet(scenario, machines=1), scenario.start_us, scenario.end_us)
    assert {d["kind"] for d in report["disturbances"]} >= {"load_step", "network_outage", "missing", "speed_change"}
    assert report["episodes"] == []


@pytest.mark.parametrize("ending", ["parquet", "csv"])
@pytest.mark.parametrize("layout", ["long", "wide", "delivered"])
def test_files_hold_every_reading(tmp_path, ending, layout):
    scenario = load_scenario("sensor-faults")
    start = scenario.start_us + 15 * DAY
    fleet = Fleet(scenario, machines=6)
    path = tmp_path / f"x.{ending}"
    count = write_readings(fleet, start, start + DAY + DAY // 3, path, layout=layout)
    table = pq.read_table(path) if ending == "parquet" else pa_csv.read_csv(path)
    series = list(fleet.generate(start, start + DAY + DAY // 3))
    assert count == sum(s.times.size for s in series)
    if layout == "wide":
        assert sum(table.num_rows - table.column(s).null_count for s in scenario.signals) == count
        assert table.column_names == ["time", "site", "machine", "temperature", "vibration", "current"]
        return
    assert table.num_rows == count
    for s in series[:4]:
        chosen = np.array(table["machine"].to_pylist()) == s.machine.number
        chosen &= np.array(table["signal"].to_pylist()) == s.signal
        values = table["value"].to_numpy()[chosen]
        assert sorted(values.tolist()) == sorted(s.values.tolist())
    if layout == "delivered":
        arrived = table["arrived"].to_numpy().astype("datetime64[us]").astype(np.int64)
        np.testing.assert_array_equal(arrived, deliveries(fleet, start, start + DAY + DAY // 3)["deliver_us"])


def test_a_wide_file_of_one_machine_can_be_replayed(tmp_path):
    scenario = load_scenario("quiet-day")
    fleet = Fleet(scenario, machines=1)
    path = tmp_path / "pump.csv"
    count = write_readings(fleet, scenario.start_us, scenario.start_us + DAY // 4, path, layout="wide")
    recording = read_recording(path, time_column="time", without=["site", "machine"])
    assert recording.readings == count
    for s in fleet.generate(scenario.start_us, scenario.start_us + DAY // 4):
        np.testing.assert_array_equal(recording.times, s.times)
        np.testing.assert_array_equal(recording.columns[s.signal], s.values)


def test_other_endings_are_refused(tmp_path):
    fleet = Fleet(load_scenario("quiet-day"), machines=1)
    with pytest.raises(FileKindUnknown, match=r"\.parquet or \.csv"):
        write_readings(fleet, 0, 1, tmp_path / "x.xlsx")


def test_readings_for_one_copy():
    scenario = load_scenario("sensor-faults")
    fleet = Fleet(scenario, machines=12)
    start = scenario.start_us + 15 * DAY
    ids = {
        (m.site, m.number, s): 100 * i + j for i, m in enumerate(fleet.machines) for j, s in enumerate(scenario.signals)
    }
    del ids["north", "P-101", "current"]
    rows = fleet.readings(start, start + DAY, ids)
    order = np.lexsort((rows["ts"], rows["sensor_id"]))
    np.testing.assert_array_equal(order, np.arange(rows.size))
    assert set(rows["sensor_id"].tolist()) == set(ids.values())
    assert (rows["quality"] == 192).all()
    assert not np.isnan(rows["value"]).any()
    series = next(fleet.generate(start, start + DAY))
    np.testing.assert_array_equal(rows["value"][rows["sensor_id"] == 0], series.values)


def test_a_healthy_run_has_an_empty_list_of_episodes():
    scenario = load_scenario("quiet-day")
    assert truth(Fleet(scenario), scenario.start_us, scenario.end_us)["episodes"] == []
    assert replace(scenario, faults=()).faults == ()
