"""Figures the re-implemented protocols must reproduce on the public files, where somebody put them beside the repository."""

import dataclasses

import numpy as np
import pytest

from anomaly import mewma
from benchmarks import corpus, score_nab, score_skab, score_vus, skab
from benchmarks.skab_baselines import BASELINES


def folder(name):
    found = corpus.default_folder(name)
    if not found.is_dir():
        pytest.skip(f"needs the public data in ../shared/data/{name}, which is missing")
    return found


@pytest.fixture(scope="module")
def valve1():
    recordings = [skab.read(path) for path in sorted((folder("skab") / "valve1").glob("*.csv"))]
    if len(recordings) != 16:
        pytest.skip(f"../shared/data/skab/valve1 holds {len(recordings)} of its 16 files")
    return recordings


@pytest.fixture(scope="module")
def severities(valve1):
    return {with_units: [skab.severities(one, with_units=with_units) for one in valve1] for with_units in (True, False)}


@pytest.mark.parametrize(
    ("name", "rows", "changes"),
    [
        ("T2", (0.646, 19.94, 44.05), (22.40, 13.45, 27.63, 39, 94)),
        ("T2+Q", (0.760, 23.89, 26.09), (23.98, 9.52, 31.33, 34, 156)),
        ("always alarm", (0.698, 100.0, 0.0), (-1.40, -2.79, -0.93, 63, 16)),
        ("never", (0.0, 0.0, 100.0), (0.0, 0.0, 0.0, 63, 0)),
    ],
)
def test_leaderboard_rows_of_skab(valve1, name, rows, changes):
    tests = [one.test for one in valve1]
    verdict = BASELINES[name]
    alarms = [verdict(one.rows[:400], one.rows[400:]) for one in valve1]
    pooled, points = score_skab.pooled(tests, alarms), score_skab.changepoints(tests, alarms)
    assert (pooled.f1, pooled.far_pct, pooled.mar_pct) == pytest.approx(rows, abs=0.006)
    assert (points.standard, points.low_fp, points.low_fn, points.missed, points.false) == pytest.approx(
        changes, abs=0.006
    )


def test_skab_counts(valve1):
    tests = [one.test for one in valve1]
    assert sum(len(test.at) for test in tests) == 11_760
    assert sum(int(test.faulty.sum()) for test in tests) == 6_309
    assert sum(len(score_skab.segments(test.faulty)) for test in tests) == 16
    assert sum(int(test.changes.sum()) for test in tests) == 63


@pytest.mark.parametrize(
    ("with_units", "least_f1", "auc"),
    [(True, 0.868, 0.92), (False, 0.89, 0.93)],
    ids=["inertia by unit", "inertia by data"],
)
def test_our_detector_keeps_its_figures_on_valve1(valve1, severities, with_units, least_f1, auc):
    tests, scores = [one.test for one in valve1], severities[with_units]
    judged, chosen = skab.leave_one_out(tests, scores)
    assert chosen == pytest.approx([skab.MULTIPLIER] * 16, abs=0.01)
    assert judged.f1 >= least_f1
    frozen = [score > skab.MULTIPLIER for score in scores]
    rows = score_skab.pooled(tests, frozen)
    assert rows.f1 >= least_f1
    assert rows.far_pct <= 10
    assert rows.mar_pct <= 20
    assert score_skab.count_tickets(tests, frozen).found == 16
    assert np.mean([score_vus.roc_auc(test.faulty, score) for test, score in zip(tests, scores, strict=True)]) >= auc


def test_inertia_by_unit_reproduces_the_reference_without_thermal_channels(valve1, severities):
    tests, scores = [one.test for one in valve1], severities[True]
    judged, _ = skab.leave_one_out(tests, scores)
    assert (judged.f1, judged.far_pct, judged.mar_pct) == pytest.approx((0.869, 7.0, 18.5), abs=0.06)
    pairs = list(zip(tests, scores, strict=True))
    assert np.mean([score_vus.roc_auc(test.faulty, score) for test, score in pairs]) == pytest.approx(0.920, abs=0.001)
    assert np.mean([score_vus.vus_pr(test.faulty, score) for test, score in pairs]) == pytest.approx(0.952, abs=0.002)


def test_what_a_channel_is_called_changes_nothing_where_data_decide(valve1):
    one = valve1[3]
    shuffled = dataclasses.replace(one, rows=one.rows[:, ::-1], units=one.units[::-1])
    for with_units in (True, False):
        np.testing.assert_allclose(
            skab.severities(shuffled, with_units=with_units), skab.severities(one, with_units=with_units), rtol=1e-6
        )


def test_a_verdict_never_sees_what_comes_later(valve1):
    one = valve1[0]
    cut = dataclasses.replace(
        one, rows=one.rows[:700], at=one.at[:700], faulty=one.faulty[:700], changes=one.changes[:700]
    )
    np.testing.assert_allclose(skab.severities(cut), skab.severities(one)[:300], rtol=0, atol=1e-9)


def test_the_healthy_run_opens_no_ticket_after_an_hour_of_baseline():
    healthy = skab.read(folder("skab") / "anomaly-free" / "anomaly-free.csv")
    assert skab.healthy_tickets(healthy, 3600) == (0, 0.0)


def test_the_healthy_run_stays_quiet_on_a_baseline_of_minutes_that_is_not_trusted():
    healthy = skab.read(folder("skab") / "anomaly-free" / "anomaly-free.csv")
    opened, share = skab.healthy_tickets(healthy, 400, smoothing=mewma.PROVISIONAL)
    assert opened <= 1
    assert share <= 0.1
    assert skab.healthy_tickets(healthy, 400)[1] > 0.9  # what trusting it would cost


@pytest.fixture(scope="module")
def nab():
    series, profiles = score_nab.read_corpus(folder("nab"))
    if len(series) != 24:
        pytest.skip(f"../shared/data/nab holds {len(series)} files, the figures are of 24")
    return series, profiles


def step(one):
    return np.abs(np.diff(one.values, prepend=one.values[0]))


def probation_z(one):
    known = one.values[: one.probation]
    return np.abs(one.values - known.mean()) / (known.std() + 1e-9)


@pytest.mark.parametrize(
    ("detector", "scores", "standard"),
    [
        (step, (2.554, 1.900, 3.063), (2, 13)),
        (probation_z, (9.608, 6.255, 11.167), (7, 32)),
    ],
)
def test_check_figures_of_the_nab_scorer(nab, detector, scores, standard):
    series, profiles = nab
    given = [detector(one) for one in series]
    outcomes = {name: score_nab.sweep(series, given, profile) for name, profile in profiles.items()}
    assert [outcomes[name].score for name in ("standard", "low_fp", "low_fn")] == pytest.approx(scores, abs=0.001)
    assert (outcomes["standard"].found, outcomes["standard"].false_rows) == standard


@pytest.mark.parametrize(
    ("part", "scores"),
    [
        ("machine_temperature_system_failure", (60.446, 48.276)),
        ("ambient_temperature_system_failure", (18.044, 94.124)),
    ],
)
def test_check_figures_of_single_nab_files(nab, part, scores):
    series, profiles = nab
    one = next(one for one in series if part in one.name)
    got = [score_nab.sweep([one], [detector(one)], profiles["standard"]).score for detector in (step, probation_z)]
    assert got == pytest.approx(scores, abs=0.001)


def test_always_alarming_costs_what_it_costs(nab):
    series, profiles = nab
    always = [np.ones(len(one.values)) for one in series]
    assert score_nab.total_at(series, always, profiles["standard"], 0.5) == pytest.approx(-11860.5, abs=0.05)
