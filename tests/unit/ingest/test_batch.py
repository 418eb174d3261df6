"""Sealing a batch loses nothing: every reading is a row, a duplicate, a collision or a refusal."""

import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fettle.model import Flag, Quality
from fettle.wire import READING_DTYPE
from ingest.batch import Batch, encode_array, encode_copy, seal, sort_unique
from ingest.decode import ClockPolicy

NOW = 1_795_219_200_000_000
POLICY = ClockPolicy(future_us=10, retention_us=1000, late_us=100)
readings = st.lists(
    st.tuples(
        st.integers(1, 4), st.integers(NOW - 1100, NOW + 20), st.sampled_from([1.0, 2.0, float("nan")])
    ),
    max_size=60,
)  # fmt: skip


def _batch(items):
    batch = Batch(received_us=NOW)
    for i, (sensor, ts, value) in enumerate(items):
        batch.topics.append(b"t")
        batch.payloads.append(b"%d" % i)
        batch.sensor_ids.append(sensor)
        batch.ts.append(ts)
        batch.values.append(value)
        batch.owners.append(i)
    return batch


@given(readings)
def test_every_reading_ends_in_one_state(items):
    batch = _batch(items)
    sealed = seal(batch, policy=POLICY)
    assert sealed.readings == batch.readings == len(items)
    keys = [(row["sensor_id"], row["ts"]) for row in sealed.rows]
    assert keys == sorted(set(keys))
    first = {}
    for i, (sensor, ts, value) in enumerate(items):
        if NOW - 1000 <= ts <= NOW + 10:
            first.setdefault((sensor, ts), (i, value))
    assert dict(zip(keys, sealed.owners.tolist(), strict=True)) == {key: i for key, (i, _) in first.items()}
    refused = {r.message for r in sealed.refusals}
    assert refused == {i for i, (_, ts, _) in enumerate(items) if not NOW - 1000 <= ts <= NOW + 10}


@given(readings)
def test_duplicates_are_equal_and_collisions_are_not(items):
    rows = np.array([(s, 192, 0, t, v) for s, t, v in items], dtype=READING_DTYPE)
    owners = np.arange(len(rows), dtype=np.int32)
    unique, _, duplicates, collisions = sort_unique(rows, owners)
    last, _, again, differing = sort_unique(rows, owners, keep_last=True)
    assert len(unique) + duplicates + collisions == len(items) == len(last) + again + differing
    by_key = {}
    for s, t, v in items:
        by_key.setdefault((s, t), []).append(v)
    assert {(r["sensor_id"], r["ts"]): repr(float(r["value"])) for r in last} == {k: repr(v[-1]) for k, v in by_key.items()}  # fmt: skip
    if all(len({repr(v) for v in values}) == 1 for values in by_key.values()):
        assert collisions == 0


def test_late_readings_are_flagged_and_clamped_ones_too():
    clamp = ClockPolicy(future_us=10, future="clamp", retention_us=1000, late_us=100)
    sealed = seal(_batch([(1, NOW - 500, 1.0), (2, NOW + 50, 1.0), (3, NOW, 1.0)]), policy=clamp)
    assert sealed.rows["flags"].tolist() == [Flag.LATE, Flag.CLAMPED, 0]
    assert sealed.rows["ts"].tolist() == [NOW - 500, NOW, NOW]
    assert not sealed.refusals


def _decode_copy(data):
    """Read PostgreSQL's binary COPY format, as its documentation describes it."""
    assert data[:11] == b"PGCOPY\n\xff\r\n\0"
    assert data[11:19] == bytes(8)
    at, rows = 19, []
    while True:
        (n,) = struct.unpack_from(">h", data, at)
        at += 2
        if n == -1:
            assert at == len(data)
            return rows
        fields = []
        for _ in range(n):
            (width,) = struct.unpack_from(">i", data, at)
            at += 4
            fields.append(None if width == -1 else data[at : at + width])
            at += max(width, 0)
        rows.append(fields)


@given(st.lists(st.tuples(st.integers(1, 2**31 - 1), st.sampled_from([0, 192, 500]), st.integers(0, 31), st.integers(-(2**50), 2**51), st.floats(allow_infinity=False)), max_size=20))  # fmt: skip
def test_binary_copy_says_what_the_rows_say(items):
    rows = np.array(items, dtype=READING_DTYPE)
    decoded = _decode_copy(encode_copy(rows))
    assert len(decoded) == len(items)
    for fields, (sensor, quality, flags, ts, value) in zip(decoded, items, strict=True):
        assert struct.unpack(">i", fields[0]) == (sensor,)
        assert struct.unpack(">hh", fields[1] + fields[2]) == (quality, flags)
        assert struct.unpack(">q", fields[3]) == (ts - 946_684_800_000_000,)
        if np.isnan(value):
            assert fields[4] is None
        else:
            assert struct.unpack(">d", fields[4]) == (value,)


def test_binary_arrays_are_laid_out_as_postgresql_reads_them():
    data = encode_array(np.array([1, -2], dtype=np.int32), 23)
    assert struct.unpack(">5i 2i 2i", data) == (1, 0, 23, 2, 1, 4, 1, 4, -2)


def test_quality_and_flags_of_odd_rows_are_kept():
    batch = _batch([(1, NOW, 1.0), (2, NOW, float("nan"))])
    batch.odd[1] = (Quality.STALE, Flag.RECEIVE_TIME)
    sealed = seal(batch, policy=POLICY)
    assert sealed.rows["quality"].tolist() == [Quality.GOOD, Quality.STALE]
    assert sealed.rows["flags"].tolist() == [0, Flag.RECEIVE_TIME]
