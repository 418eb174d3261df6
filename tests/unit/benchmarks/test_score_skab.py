import numpy as np
import pytest

from benchmarks import score_skab
from benchmarks.score_skab import SECOND, Labelled

STANDARD = score_skab.PROFILES["standard"]


def labelled(faulty, changes=(), name="file", seconds=None):
    faulty = np.array(faulty, dtype=bool)
    at = np.array(seconds if seconds is not None else np.arange(len(faulty)), dtype=np.int64) * SECOND
    marked = np.zeros(len(faulty), dtype=bool)
    marked[list(changes)] = True
    return Labelled(name, at, faulty, marked)


def bits(length, *ranges):
    out = np.zeros(length, dtype=bool)
    for first, last in ranges:
        out[first:last] = True
    return out


def test_outlier_counts_are_pooled_and_not_averaged():
    first = labelled([0, 1, 1, 1])
    second = labelled([1, 0])
    rows = score_skab.pooled([first, second], [np.array([1, 1, 0, 1], bool), np.array([0, 0], bool)])
    assert (rows.true, rows.false, rows.missed, rows.quiet) == (2, 1, 2, 1)
    assert rows.f1 == pytest.approx(2 / 3.5)
    assert rows.far_pct == pytest.approx(50)
    assert rows.mar_pct == pytest.approx(50)


def test_a_row_without_verdict_is_refused():
    with pytest.raises(ValueError, match="2 verdicts for 3 rows"):
        score_skab.outliers(np.zeros(3, bool), np.zeros(2, bool))


def test_an_alarm_is_worth_one_at_the_left_end_and_a_false_one_at_the_right():
    assert score_skab.worth(0, 60 * SECOND, 0, STANDARD) == pytest.approx(1)
    assert score_skab.worth(0, 60 * SECOND, 60 * SECOND, STANDARD) == pytest.approx(-0.11)
    assert score_skab.worth(0, 60 * SECOND, 30 * SECOND, STANDARD) == pytest.approx((1 - 0.11) / 2, abs=2e-3)


def test_silence_scores_zero_and_a_prompt_alarm_a_hundred():
    file = labelled(bits(300, (100, 200)), changes=[100, 200])
    assert score_skab.changepoints([file], [np.zeros(300, bool)]).standard == 0
    perfect = score_skab.changepoints([file], [bits(300, (100, 200))])
    assert perfect.standard == pytest.approx(100)
    assert (perfect.missed, perfect.false) == (0, 0)


def test_switches_outside_windows_cost_and_an_alarm_from_the_first_row_is_a_switch():
    file = labelled(np.zeros(300), changes=[100])
    result = score_skab.changepoints([file], [bits(300, (0, 20))])
    assert (result.missed, result.false) == (1, 2)
    assert result.standard == pytest.approx(100 * (2 * -0.11) / 2)


def test_the_later_of_two_overlapping_windows_starts_where_the_earlier_ends():
    assert score_skab.change_windows(np.array([0, 40 * SECOND])) == [(0, 60 * SECOND), (60 * SECOND, 100 * SECOND)]


def test_a_ticket_opens_after_ten_seconds_and_clears_after_sixty():
    at = np.arange(300, dtype=np.int64) * SECOND
    opened = score_skab.tickets(at, bits(300, (50, 100), (120, 125)))
    assert [(t.onset_at, t.opened_at, t.cleared_at) for t in opened] == [(50 * SECOND, 60 * SECOND, 184 * SECOND)]
    assert score_skab.tickets(at, bits(300, (50, 60))) == []
    assert score_skab.tickets(at, bits(300, (250, 300)))[0].cleared_at is None


def test_a_ticket_already_open_at_onset_is_false_and_finds_nothing():
    file = labelled(bits(400, (200, 300)))
    early = score_skab.count_tickets([file], [bits(400, (150, 260))])
    assert (early.events, early.found, early.false) == (1, 0, 1)
    assert early.median_delay_s is None
    timely = score_skab.count_tickets([file], [bits(400, (205, 290))])
    assert (timely.found, timely.false, timely.delays_s) == (1, 0, (15.0,))
    assert timely.false_per_h == 0
    assert timely.normal_h == pytest.approx(300 / 3600)


def test_seconds_missing_from_the_file_still_pass():
    at = np.array([0, 5, 11, 12], dtype=np.int64) * SECOND
    assert score_skab.tickets(at, np.array([1, 1, 1, 0], bool))[0].opened_at == 11 * SECOND


def test_segments_are_closed_ranges():
    assert score_skab.segments(np.array([1, 1, 0, 1, 0, 0, 1], bool)) == [(0, 1), (3, 3), (6, 6)]
    assert score_skab.segments(np.zeros(3, bool)) == []
