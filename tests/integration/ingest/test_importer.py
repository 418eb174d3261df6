"""Files of readings: long and wide, CSV and Parquet, twice over, and with rows that cannot be read."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fettle.cli import main
from ingest.api import Columns, bulk_writer, import_file
from ingest.importer import BadRow, MissingColumn, MissingPlace, UnreadableFile

LONG = """time,site,machine,sensor,value,unit
2026-01-05T10:00:00Z,s1,m1,vibration,2.5,mm/s
2026-01-05T10:00:01Z,s1,m1,vibration,2.6,mm/s
2026-01-05T10:00:00Z,s1,m2,temperature,,Cel
"""
WIDE = """time,vibration [mm/s],temperature [°C]
2026-01-05 10:00:00,2.5,40
2026-01-05 10:00:10.250,,41.5
"""
STORED = """
    SELECT m.number, s.name, s.unit, extract(epoch FROM r.ts)::float8, r.value
    FROM reading r JOIN sensor s ON s.id = r.sensor_id JOIN machine m ON m.id = s.machine_id ORDER BY 1, 2, 4
"""
TEN = 1767607200.0  # 2026-01-05T10:00:00Z


@pytest.fixture
def take(plain_database, settings_for):
    def run(path, **columns):
        with bulk_writer(settings_for(), url=plain_database.url, name="import") as writer:
            shares = []
            done = import_file(path, Columns(**columns), tenant="default", writer=writer, on_progress=shares.append)
            assert shares == sorted(shares)
            assert not shares or shares[-1] == pytest.approx(1, abs=0.01)
            return done

    return run


def test_a_long_file_twice(plain_database, take, tmp_path, rows):
    path = tmp_path / "long.csv"
    path.write_text(LONG)
    first, second = take(path), take(path)
    assert (first.rows, first.stored, first.duplicates) == (3, 3, 0)
    assert (second.stored, second.duplicates) == (0, 3)
    assert rows(plain_database, STORED) == [
        ("m1", "vibration", "mm/s", TEN, 2.5),
        ("m1", "vibration", "mm/s", TEN + 1, 2.6),
        ("m2", "temperature", "°C", TEN, None),
    ]


def test_a_wide_file_in_a_zone_of_its_own(plain_database, take, tmp_path, rows):
    path = tmp_path / "wide.csv.gz"
    path.write_bytes(gzip.compress(WIDE.encode()))
    take(path, site="s1", machine="m1", time_zone="Europe/Berlin")
    assert rows(plain_database, STORED) == [
        ("m1", "temperature", "°C", TEN - 3600, 40.0),
        ("m1", "temperature", "°C", TEN - 3600 + 10.25, 41.5),
        ("m1", "vibration", "mm/s", TEN - 3600, 2.5),
    ]


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_numbers_as_time_stamps(plain_database, take, tmp_path, rows, unit):
    path = tmp_path / "numbers.tsv"
    stamp = "1767607200" if unit == "s" else "1767607200000"
    path.write_text(f"t\tv [A]\n{stamp}\t1\n")
    take(path, site="s1", machine="m1", time="t")
    assert rows(plain_database, STORED) == [("m1", "v", "A", TEN, 1.0)]


def test_parquet_of_many_rows(plain_database, take, tmp_path, rows):
    n = 250_000
    stamps = np.datetime64("2026-01-05T10:00:00", "us") + np.arange(n) * np.timedelta64(1, "s")
    path = tmp_path / "many.parquet"
    pq.write_table(pa.table({"time": stamps, "v [A]": np.arange(n, dtype=float)}), path)
    done = take(path, site="s1", machine="m1")
    assert done.stored == n
    assert rows(plain_database, "SELECT count(*), sum(value) FROM reading") == [(n, n * (n - 1) / 2)]
    assert rows(plain_database, "SELECT sum(length(payload)) / 24 FROM batch") == [(n,)]


BAD = """time,site,machine,sensor,value
2026-01-05T10:00:00Z,s1,m1,v,1
yesterday,s1,m1,v,2
2026-01-05T10:00:02Z,s1,m1,v,high
2026-01-05T10:00:03Z,s1,,v,4
2026-01-05T10:00:04Z,s1,m1,v,5
"""


def test_bad_rows_are_named_and_nothing_of_their_piece_is_stored(plain_database, take, tmp_path, rows):
    path = tmp_path / "bad.csv"
    path.write_text(BAD)
    with pytest.raises(BadRow, match=r"row 3, column 'time': 'yesterday' is not ISO 8601.*--skip-bad"):
        take(path)
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(0,)]


def test_bad_rows_are_left_out_on_request(plain_database, take, tmp_path, rows):
    path = tmp_path / "bad.csv"
    path.write_text(BAD)
    done = take(path, skip_bad=True)
    assert (done.rows, done.stored, done.bad) == (5, 2, 3)
    assert [problem.split(":")[0] for problem in done.problems] == ["row 3, column 'time'", "row 4, column 'value'", "row 5, column 'machine'"]  # fmt: skip
    assert rows(plain_database, "SELECT value FROM reading ORDER BY ts") == [(1.0,), (5.0,)]


def test_what_a_file_lacks_is_said(take, tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("when,v\n1767607200,2\n")
    with pytest.raises(MissingColumn, match="it has 'when', 'v'"):
        take(path)
    with pytest.raises(MissingPlace, match="--site"):
        take(path, time="when")
    with pytest.raises(UnreadableFile, match="no such file"):
        take(tmp_path / "absent.csv")
    with pytest.raises(UnreadableFile, match=r"\.csv"):
        take(tmp_path / "x.xlsx")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UnreadableFile):
        take(tmp_path / "x.parquet")
    with pytest.raises(UnreadableFile, match="no time zone"):
        take(path, time_zone="Mars")


def test_the_verb_says_what_it_did(plain_database, tmp_path, monkeypatch, capsys):
    path = tmp_path / "long.csv"
    path.write_text(LONG)
    monkeypatch.setenv("FETTLE_DATABASE_URL", plain_database.url)
    monkeypatch.chdir(tmp_path)
    assert main(["import", str(path)]) == 0
    assert "3 readings stored, 0 there already" in " ".join(capsys.readouterr().out.split())
