"""Files of readings: long and wide, CSV and Parquet, twice over, and with rows that cannot be read."""

import gzip

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fettle.cli import main
from ingest.api import Columns, SensorRefused, bulk_writer, import_file
from ingest.importer import BadRow, MissingColumn, MissingPlace, OtherEncoding, UnreadableFile

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


@pytest.mark.parametrize(("encoding", "codec"), [("gb18030", "gb18030"), ("utf-16", "utf-16"), ("cp1252", "latin-1"), ("UTF8", "utf-8-sig")])  # fmt: skip
def test_a_file_in_another_encoding(plain_database, take, tmp_path, rows, encoding, codec):
    path = tmp_path / "there.csv"
    text = LONG if codec != "gb18030" else LONG.replace("m2", "二号泵")
    path.write_bytes(text.replace("Cel", "°C").encode(codec))
    assert take(path, encoding=encoding).stored == 3
    assert ("二号泵" if codec == "gb18030" else "m2", "°C") in {
        (m, u) for m, _, u, _, _ in rows(plain_database, STORED)
    }


@pytest.mark.parametrize("where", ["header", "first row", "far down", "end"])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_a_byte_that_is_no_text_is_named(take, tmp_path, where, suffix):
    row = "2026-01-05T10:00:{:02}Z,s1,m1,vibration,2.5,mm/s\n"
    lines = [LONG.splitlines(keepends=True)[0].encode()] + [row.format(n % 60).encode() for n in range(3000)]
    line = {"header": 1, "first row": 2, "far down": 2500, "end": 3001}[where]
    at = sum(map(len, lines[: line - 1])) + len(lines[line - 1].rstrip())
    lines[line - 1] = lines[line - 1].rstrip() + b"\xb0C\n" * (where != "end") + b"\xe4" * (where == "end")
    path = tmp_path / f"odd{suffix}"
    path.write_bytes(b"".join(lines) if suffix == ".csv" else gzip.compress(b"".join(lines)))
    with pytest.raises(OtherEncoding) as refused:
        take(path)
    assert refused.value.data["line"] == line
    assert refused.value.data["at"] == at + (where == "end")
    message = str(refused.value)
    assert "Save the file as UTF-8" in message
    assert "--encoding gb18030" in message
    assert "codec" not in message


def test_utf_16_is_recognised(take, tmp_path):
    path = tmp_path / "excel.csv"
    path.write_bytes(LONG.encode("utf-16"))
    with pytest.raises(OtherEncoding, match=r"line 1, byte 0: 0xff is not utf-8.*--encoding utf-16"):
        take(path)


def test_an_encoding_that_nobody_knows(take, tmp_path):
    with pytest.raises(UnreadableFile, match="'utf-9' is no encoding"):
        take(tmp_path / "x.csv", encoding="utf-9")


def test_a_column_of_another_quantity_is_refused(plain_database, settings_for, rows):
    """Also by a writer that has not seen the sensor before."""
    for place in (("s1", "m1", "pressure", "bar"), ("s1", "m1", "pressure", "")):
        with bulk_writer(settings_for(), url=plain_database.url, name="import") as writer:
            assert writer.sensors("default", [place]) == [1]
    with (
        bulk_writer(settings_for(), url=plain_database.url, name="import") as writer,
        pytest.raises(SensorRefused, match="s1/m1/pressure cannot be stored: it is in bar, not in Cel"),
    ):
        writer.sensors("default", [("s1", "m1", "pressure", "Cel")])
