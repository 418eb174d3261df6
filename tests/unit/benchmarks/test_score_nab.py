import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import score_nab
from benchmarks.score_nab import Profile, Series

STANDARD = Profile(tp=1.0, fp=0.11, fn=1.0)


def series(count, *windows, name="file"):
    return Series(name, np.arange(count) * 300_000_000, np.zeros(count), tuple(windows))


def at(count, *rows):
    scores = np.zeros(count)
    scores[list(rows)] = 1.0
    return scores


def test_probation_is_fifteen_percent_and_at_most_750_rows():
    assert series(1000).probation == 150
    assert series(20_000).probation == 750


def test_the_first_row_of_a_window_is_worth_one_and_the_last_next_to_nothing():
    values, window_of = score_nab.worth(series(1000, (400, 499)))
    assert values[400] == pytest.approx(1)
    assert 0 < values[499] < 0.03
    assert (np.diff(values[400:500]) < 0).all()
    assert window_of[399:401].tolist() == [-1, 0]


def test_false_rows_cost_more_the_farther_they_lie_behind_a_window():
    values, _ = score_nab.worth(series(1000, (400, 499)))
    assert values[399] == -1
    assert -0.03 < values[500] < 0
    assert values[550] == pytest.approx(2 / (1 + np.exp(5 * 51 / 99)) - 1)
    assert values[900] == -1


def test_silence_is_zero_and_prompt_detection_nearly_a_hundred():
    corpus = [series(1000, (400, 499))]
    assert score_nab.sweep(corpus, [np.zeros(1000)], STANDARD).score == 0
    best = score_nab.sweep(corpus, [at(1000, 400)], STANDARD)
    assert best.score == pytest.approx(100)
    assert (best.found, best.false_rows, best.threshold) == (1, 0, 1.0)


def test_only_the_best_row_of_a_window_counts_but_every_false_row():
    corpus = [series(1000, (400, 499))]
    many = score_nab.sweep(corpus, [at(1000, 400, 410, 420)], STANDARD).score
    assert many == pytest.approx(100)
    spoiled = score_nab.sweep(corpus, [at(1000, 400, 200, 300)], STANDARD).score
    assert spoiled == pytest.approx(100 * (1 - 0.22 + 1) / 2)


def test_rows_in_probation_never_count():
    assert score_nab.sweep([series(1000, (100, 140))], [at(1000, 120)], STANDARD).score == 0


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 6),
    st.sampled_from([(1.0, 0.11, 1.0), (1.0, 0.22, 1.0), (1.0, 0.11, 2.0)]),
)
def test_the_sweep_finds_the_best_threshold_there_is(seed, levels, weights):
    rng = np.random.default_rng(seed)
    corpus = [series(120, (40, 60), (80, 95)), series(100), series(90, (50, 70))]
    scores = [rng.integers(0, levels, len(one.values)).astype(float) for one in corpus]
    profile = Profile(*weights)
    best = score_nab.sweep(corpus, scores, profile)
    tried = [score_nab.total_at(corpus, scores, profile, threshold) for threshold in [*range(levels), np.inf]]
    assert best.score == pytest.approx(max(tried), abs=1e-9)
    assert score_nab.total_at(corpus, scores, profile, best.threshold) == pytest.approx(best.score, abs=1e-9)


def test_held_out_files_are_judged_at_the_threshold_of_the_others():
    corpus = [series(1000, (400, 499), name=str(k)) for k in range(3)]
    alike = [at(1000, 400)] * 3
    assert score_nab.held_out(corpus, alike, STANDARD) == pytest.approx(100)
    one_quieter = [at(1000, 400), at(1000, 400), at(1000, 400) * 0.5]
    assert score_nab.held_out(corpus, one_quieter, STANDARD) == pytest.approx(100 * 2 / 3)


def test_false_rows_close_together_are_one_event():
    one = series(1000, (400, 499))
    assert score_nab.found_and_false_events(one, at(1000, 450, 600, 605, 612, 700), 0.5) == (1, 2)
    assert score_nab.found_and_false_events(one, np.zeros(1000), 0.5) == (0, 0)


def test_a_folder_in_nabs_layout_is_read_and_unlabelled_files_are_named(tmp_path, capsys):
    for folder in ("data/group", "labels", "config"):
        (tmp_path / folder).mkdir(parents=True)
    rows = "\n".join(f"2014-01-01 00:{minute:02}:00,{minute}" for minute in range(0, 60, 5))
    for name in ("a", "b"):
        (tmp_path / f"data/group/{name}.csv").write_text(f"timestamp,value\n{rows}\n")
    windows = {"group/a.csv": [["2014-01-01 00:10:00.000000", "2014-01-01 00:20:00.000000"]]}
    (tmp_path / "labels/combined_windows.json").write_text(json.dumps(windows))
    matrix = {"tpWeight": 1.0, "fpWeight": 0.11, "fnWeight": 1.0, "tnWeight": 1.0}
    names = ("standard", "reward_low_FP_rate", "reward_low_FN_rate")
    (tmp_path / "config/profiles.json").write_text(json.dumps({name: {"CostMatrix": matrix} for name in names}))
    corpus, profiles = score_nab.read_corpus(tmp_path)
    assert [one.name for one in corpus] == ["group/a.csv"]
    assert corpus[0].windows == ((2, 4),)
    assert corpus[0].values.tolist() == list(range(0, 60, 5))
    assert profiles["low_fn"] == STANDARD
    assert "group/b.csv" in capsys.readouterr().out


def test_a_folder_without_labels_is_refused_by_name(tmp_path):
    with pytest.raises(SystemExit, match="combined_windows"):
        score_nab.read_corpus(tmp_path)
