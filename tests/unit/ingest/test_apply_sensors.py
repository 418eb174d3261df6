"""What the writer finds out about a sensor is judged as what the intake knew already: only the moment differs."""

import pytest

from ingest.batch import Batch, TextReading, Wanted, Waveform
from ingest.catalogue import Sensor
from ingest.decode import WaveformBurst
from ingest.writer import apply_sensors

PATH = ("s1", "m1", "pressure")
BAR = Sensor(7, "pressure", "bar", is_enabled=True)


def _batch(*units):
    batch = Batch(topics=[b"t"] * len(units), payloads=[b"p"] * len(units))
    for message, unit in enumerate(units):
        batch.wanted[message] = Wanted("default", PATH, unit)
        batch.sensor_ids.append(0)
        batch.ts.append(message)
        batch.values.append(20.0)
        batch.owners.append(message)
    return batch


@pytest.mark.parametrize(("unit", "is_refused"), [("bar", False), (None, False), ("furlong", False), ("Cel", True)])
def test_a_sensor_that_the_writer_resolved_takes_only_its_own_quantity(unit, is_refused):
    batch = _batch("bar", unit)
    apply_sensors(batch, dict.fromkeys(batch.wanted.values(), BAR))
    assert batch.sensor_ids == ([7] if is_refused else [7, 7])
    assert [(r.message, r.reason, r.readings) for r in batch.refusals] == (
        [(1, "unit_mismatch", 1)] if is_refused else []
    )
    assert batch.readings == 2


def test_words_and_bursts_of_another_quantity_are_refused_too():
    batch = _batch()
    batch.topics, batch.payloads = [b"t"], [b"p"]
    want = Wanted("default", PATH, "Cel")
    burst = WaveformBurst(PATH, 0, 100.0, "Cel", 1, "<f4", 1.0, b"\0\0\0\0")
    batch.texts.append(TextReading(0, 0, want, 1, 192, 0, "warm"))
    batch.waveforms.append(Waveform(0, 0, want, 1, burst))
    apply_sensors(batch, {want: BAR})
    assert (batch.texts, batch.waveforms) == ([], [])
    assert [r.reason for r in batch.refusals] == ["unit_mismatch"] * 2
    assert "in bar, the message says Cel" in batch.refusals[0].detail


@pytest.mark.parametrize("is_enabled", [True, False])
def test_of_a_burst_that_goes_no_further_no_feature_is_stored(is_enabled):
    """As where the intake knew the sensor. What another sensor of the message says stays."""
    batch = _batch("bar")
    batch.topics, batch.payloads = [b"t"], [b"p"]
    burst = WaveformBurst(PATH, 0, 100.0, "Cel", 1, "<f4", 1.0, b"\0\0\0\0")
    base = Wanted("default", PATH, "Cel")
    batch.waveforms.append(Waveform(0, 0, base, 1, burst))
    other = Wanted("default", ("s1", "m1", "flow"), None)
    crest = Wanted("default", ("s1", "m1", "pressure.crest"), None)
    for row, want in enumerate((crest, other), 1):
        batch.wanted[row] = want
        batch.sensor_ids.append(0)
        batch.ts.append(row)
        batch.values.append(float(row))
        batch.owners.append(0)
    first = batch.wanted[0]
    apply_sensors(
        batch,
        {
            first: BAR,
            base: BAR._replace(is_enabled=is_enabled),
            crest: Sensor(8, "other", "", is_enabled=True),
            other: Sensor(9, "other", "", is_enabled=True),
        },
    )
    assert (batch.sensor_ids, batch.waveforms) == ([7, 9], [])
    assert [r.reason for r in batch.refusals] == ["unit_mismatch"] * is_enabled
    assert batch.ignored_readings == 1 + (not is_enabled)
    assert batch.readings == 4
