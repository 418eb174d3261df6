"""Reading a recording: what is understood, and what a wrong file is told."""

import codecs
from contextlib import suppress
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simulators.recording import (
    ColumnUnknown,
    RecordingUnreadable,
    RecordingWrong,
    TimeFormatUnclear,
    check_sensor_names,
    read_recording,
)


def write(tmp_path, text, *, encoding="utf-8"):
    path = tmp_path / "file.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return path


def us(*parts):
    return round(datetime(*parts, tzinfo=UTC).timestamp() * 1e6)


PLAIN = "time,a,b\n2026-01-05 10:00:00,1.5,2\n2026-01-05 10:00:01,2.5,\n"


def test_a_plain_file(tmp_path):
    got = read_recording(write(tmp_path, PLAIN), time_column="time")
    assert got.times.tolist() == [us(2026, 1, 5, 10), us(2026, 1, 5, 10, 0, 1)]
    assert got.columns["a"].tolist() == [1.5, 2.5]
    np.testing.assert_array_equal(got.columns["b"], [2, np.nan])
    assert (got.readings, got.ignored, got.backwards, got.lines.tolist()) == (3, (), 0, [2, 3])


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        ("2004.02.12.10.32.39", us(2004, 2, 12, 10, 32, 39)),
        ("2026-01-05T10:00:00Z", us(2026, 1, 5, 10)),
        ("2026-01-05T12:00:00+02:00", us(2026, 1, 5, 10)),
        ("2026-01-05 10:00:00.250", us(2026, 1, 5, 10, 0, 0, 250_000)),
        ("2026/01/05 10:00", us(2026, 1, 5, 10)),
        ("05.01.2026 10:00:00", us(2026, 1, 5, 10)),
        ("20260105100000", us(2026, 1, 5, 10)),
        ("1767607200", us(2026, 1, 5, 10)),
        ("1767607200.5", us(2026, 1, 5, 10, 0, 0, 500_000)),
        ("1767607200000", us(2026, 1, 5, 10)),
        ("1767607200000000", us(2026, 1, 5, 10)),
        ("1767607200000000000", us(2026, 1, 5, 10)),
    ],
)
def test_times_that_are_understood_by_themselves(tmp_path, cell, expected):
    got = read_recording(write(tmp_path, f"t,x\n{cell},1\n"), time_column="t")
    assert got.times.tolist() == [expected]


@pytest.mark.parametrize(
    ("cell", "form", "expected"),
    [
        ("05/01/2026 10:00", "%d/%m/%Y %H:%M", us(2026, 1, 5, 10)),
        ("2004.02.12.10.32.39", "%Y.%m.%d.%H.%M.%S", us(2004, 2, 12, 10, 32, 39)),
        ("12", "epoch_s", 12_000_000),
        ("12.5", "epoch_ms", 12_500),
    ],
)
def test_times_with_a_format(tmp_path, cell, form, expected):
    got = read_recording(write(tmp_path, f"t,x\n{cell},1\n"), time_column="t", time_format=form)
    assert got.times.tolist() == [expected]


def test_a_zone_for_times_without_one(tmp_path):
    path = write(tmp_path, PLAIN)
    plain, east = (read_recording(path, time_column="time", utc_offset_h=h) for h in (0, 8))
    assert (plain.times - east.times).tolist() == [8 * 3_600_000_000] * 2


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_separators_are_found(tmp_path, separator):
    got = read_recording(write(tmp_path, PLAIN.replace(",", separator)), time_column="time")
    assert set(got.columns) == {"a", "b"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_byte_order_marks(tmp_path, encoding):
    got = read_recording(write(tmp_path, PLAIN.replace("a,", "温度,"), encoding=encoding), time_column="time")
    assert list(got.columns) == ["温度", "b"]


def test_windows_lines_blank_lines_and_quotes(tmp_path):
    text = 'time,"a, b"\r\n"2026-01-05 10:00:00","1.5"\r\n\r\n2026-01-05 10:00:01,2\r\n'
    got = read_recording(write(tmp_path, text), time_column="time")
    assert got.columns["a, b"].tolist() == [1.5, 2]
    assert got.lines.tolist() == [2, 4]


def test_index_columns_are_left_out_unless_asked_for(tmp_path):
    text = ",Unnamed: 0,time,a\n0,0,2026-01-05 10:00:00,1\n1,10,2026-01-05 10:00:10,2\n"
    path = write(tmp_path, text)
    assert read_recording(path, time_column="time").ignored == ("(unnamed)", "Unnamed: 0")
    asked = read_recording(path, time_column="time", columns=["Unnamed: 0", "a"])
    assert asked.columns["Unnamed: 0"].tolist() == [0, 10]


def test_columns_can_be_chosen_and_left_out(tmp_path):
    path = write(tmp_path, "time,a,b,note\n2026-01-05 10:00:00,1,2,fine\n")
    assert set(read_recording(path, time_column="time", columns=["b"]).columns) == {"b"}
    assert set(read_recording(path, time_column="time", without=["note"]).columns) == {"a", "b"}


def test_labels_say_whose_a_row_is(tmp_path):
    path = write(tmp_path, "t,m,x\n100000000,P-1,1\n100000001,P-2,2\n")
    got = read_recording(path, time_column="t", label_columns=["m"])
    assert (got.labels, list(got.columns), got.ignored) == ({"m": ["P-1", "P-2"]}, ["x"], ())


@pytest.mark.parametrize("cell", ["", "a/b", "#"])
def test_a_label_has_to_be_a_name(tmp_path, cell):
    path = write(tmp_path, f"t,m,x\n100000000,P-1,1\n100000001,{cell},2\n")
    with pytest.raises(RecordingWrong, match=f"line 3, column 'm': '{cell}' is not a name"):
        read_recording(path, time_column="t", label_columns=["m"])


def test_decimal_commas_when_said(tmp_path):
    path = write(tmp_path, "time;a\n2026-01-05 10:00:00;1.234,5\n")
    assert read_recording(path, time_column="time", decimal=",").columns["a"].tolist() == [1234.5]


@pytest.mark.parametrize("cell", ["", " ", "NaN", "null", "NA", "n/a", "None"])
def test_missing_cells(tmp_path, cell):
    got = read_recording(write(tmp_path, f"time,a\n2026-01-05 10:00:00,{cell}\n"), time_column="time")
    assert np.isnan(got.columns["a"]).all()
    assert got.readings == 0


def test_words_of_truth_are_numbers(tmp_path):
    got = read_recording(
        write(tmp_path, "time,a\n2026-01-05 10:00:00,True\n2026-01-05 10:00:01,false\n"), time_column="time"
    )
    assert got.columns["a"].tolist() == [1.0, 0.0]


def test_rows_that_go_back_in_time_are_counted(tmp_path):
    text = "t,a\n100000000,1\n100000005,2\n100000003,3\n"
    assert read_recording(write(tmp_path, text), time_column="t").backwards == 1


GOOD = "time,a,b\n" + "".join(f"2026-01-05 10:00:{s:02d},1,2\n" for s in range(30))


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("", RecordingUnreadable, "is empty"),
        ("time,a\n", RecordingUnreadable, "has a header and no rows"),
        ("time\n2026-01-05 10:00:00\n", RecordingUnreadable, "no column of values"),
        ("time,a,a\n2026-01-05 10:00:00,1,2\n", RecordingUnreadable, "column 'a' twice"),
        (GOOD + "2026-01-05 10:01:00,1\n", RecordingUnreadable, "line 32 has 2 columns where the header has 3"),
        (GOOD + "2026-01-05 10:01:00,1,2,3\n", RecordingUnreadable, "line 32 has 4 columns"),
        (
            GOOD + "2026-01-05 10:01:00,1,two\n",
            RecordingWrong,
            "line 32, column 'b': 'two' is not a number or an empty cell",
        ),
        (GOOD + "2026-01-05 10:01:00,inf,2\n", RecordingWrong, "line 32, column 'a': 'inf' is not a finite number"),
        (GOOD + "2026-01-05 10:01:00,1_0,2\n", RecordingWrong, "line 32, column 'a': '1_0' is not a finite number"),
        (GOOD + "later,1,2\n", RecordingWrong, "line 32, column 'time': 'later' is not a time of the form of line 2"),
        (GOOD + ",1,2\n", RecordingWrong, "line 32, column 'time': '' is not a time"),
        (GOOD + "2026-13-05 10:01:00,1,2\n", RecordingWrong, "line 32, column 'time'"),
        ("time,a\n05/01/2026 10:00,1\n", TimeFormatUnclear, "give --time-format"),
        ("zeit,a\n2026-01-05 10:00:00,1\n", ColumnUnknown, "no column 'time'; its columns are 'zeit', 'a'"),
        ('time;a\n2026-01-05 10:00:00;"1,5"\n', RecordingWrong, "needs --decimal ,"),
        ('time,a\n2026-01-05 10:00:00,"1\n', RecordingUnreadable, "line 2 cannot be read as CSV"),
        (
            b"time,a\n2026-01-05 10:00:00,1\n2026-01-05 10:00:01,\xff\n",
            RecordingUnreadable,
            "line 3 is not UTF-8 text (byte 0xff)",
        ),
    ],
)
def test_a_wrong_file_is_refused_as_a_whole(tmp_path, text, error, says):
    path = write(tmp_path, text)
    with pytest.raises(error) as caught:
        read_recording(path, time_column="time")
    assert str(path) in str(caught.value)
    assert says in str(caught.value)
    assert "Nothing was published" in str(caught.value)


def test_an_unknown_time_format_word_is_told_the_others(tmp_path):
    with pytest.raises(RecordingUnreadable, match="none of epoch_s, epoch_ms"):
        read_recording(write(tmp_path, PLAIN), time_column="time", time_format="epoch_days")


def test_a_missing_file(tmp_path):
    with pytest.raises(RecordingUnreadable, match="cannot be read"):
        read_recording(tmp_path / "none.csv", time_column="time")


def test_a_column_that_cannot_be_a_topic_is_told_how_to_rename_it():
    check_sensor_names("f.csv", {"a b": "a b"})
    with pytest.raises(RecordingUnreadable, match="--rename 'l/min'=NAME"):
        check_sensor_names("f.csv", {"l/min": "l/min"})


@given(
    st.binary(max_size=300)
    | st.text(max_size=300).map(str.encode)
    | st.text(alphabet='t,x;\n\r"0123456789.-: ', max_size=200).map(lambda s: b"t,x\n" + s.encode())
)
def test_no_bytes_crash_it(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(data)
    with suppress(RecordingUnreadable, RecordingWrong, ColumnUnknown, TimeFormatUnclear):
        got = read_recording(path, time_column="t")
        assert got.times.size >= 1
        assert all(v.size == got.times.size and not np.isinf(v).any() for v in got.columns.values())


def test_a_mark_is_no_part_of_the_first_column(tmp_path):
    path = write(tmp_path, codecs.BOM_UTF8 + b"t,x\n1767607200,1\n")
    assert read_recording(path, time_column="t").readings == 1
