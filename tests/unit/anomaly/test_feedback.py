"""What follows from confirmed and rejected findings: precision with its interval, lifts, demotion."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from anomaly.feedback import LIFT_MOST, STOP_AFTER, RuleRecord, carriers, lifts_after, pattern_of, wilson
from anomaly.finding import Finding
from anomaly.steering import Lift
from fettle.model import FaultFamily, FindingKind, MachineId, SensorId, Severity


def finding(*contributions, sensors=(2,)):
    return Finding(
        key="k", machine_id=MachineId(1), fault_family=FaultFamily.IMBALANCE, kind=FindingKind.MACHINE, severity=Severity.LOW,
        onset_us=0, raised_us=1, cleared_us=None, detector="residual", block="SD", model_version="v", tier=2, mode="running",
        score=1.0, p_value=None, threshold=1.0, set_rate=0.01, sensor_ids=tuple(SensorId(s) for s in sensors),
        evidence={"contributions": [{"sensor_id": s, "feature": f, "contribution": c} for s, f, c in contributions]},
    )  # fmt: skip


@pytest.mark.parametrize(("successes", "n"), [(0, 1), (3, 10), (9, 10), (50, 50), (120, 400)])
def test_the_interval_is_wilsons(successes, n):
    expected = binomtest(successes, n).proportion_ci(method="wilson")
    assert wilson(successes, n) == pytest.approx((expected.low, expected.high))


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_holds_the_share(pair):
    low, high = wilson(*pair)
    assert 0 <= low <= pair[0] / pair[1] + 1e-12
    assert pair[0] / pair[1] - 1e-12 <= high <= 1


@pytest.mark.parametrize(
    ("confirmed", "rejected", "is_watch"),
    [(2, 8, True), (3, 7, False), (0, 9, False), (0, 10, True), (29, 71, True), (0, 0, False)],
)
def test_a_rule_is_demoted_below_thirty_percent_of_ten_decided(confirmed, rejected, is_watch):
    record = RuleRecord("bearing", "residual", "pump", confirmed, rejected, undecided=50, missed=3)
    assert record.is_watch is is_watch
    assert record.n == confirmed + rejected


def test_nothing_decided_is_no_precision():
    assert RuleRecord("bearing", "residual", "pump", undecided=4).as_dict() is None


def test_a_rejection_lifts_just_above_the_peak_and_no_further_than_allowed():
    found = finding((2, "residual", 1.2), (3, "residual", 0.4))
    assert lifts_after(found, rejections=1, peaks={(2, "residual"): 1.5}, before=[]) == [
        Lift(2, "residual", pytest.approx(1.65), is_stopped=False),
        Lift(2, "change", pytest.approx(1.65), is_stopped=False),  # the other rule that sees the same
    ]
    lifts = lifts_after(found, rejections=4, peaks={(2, "residual"): 7.0}, before=[])
    assert {lift.factor for lift in lifts} == {LIFT_MOST}


def test_a_lift_never_falls_below_what_is_in_force():
    (lift,) = lifts_after(finding((2, "siblings", 0.9)), rejections=2, peaks={}, before=[Lift(2, "siblings", 1.9)])
    assert lift.factor == pytest.approx(1.9)


def test_a_pattern_that_was_stopped_stays_so_however_the_next_rejection_counts():
    before = [Lift(2, "residual", 12.0, is_stopped=True), Lift(2, "change", 12.0, is_stopped=True)]
    lifts = lifts_after(finding((2, "residual", 1.2)), rejections=1, peaks={}, before=before)
    assert {(lift.factor, lift.is_stopped) for lift in lifts} == {(12.0, True)}


def test_a_score_is_told_in_lifted_levels_and_counts_for_what_it_was_without():
    found = finding((2, "siblings", 1.2))
    (lift,) = lifts_after(found, rejections=2, peaks={}, before=[Lift(2, "siblings", 1.4)])
    assert lift.factor == pytest.approx(1.1 * 1.2 * 1.4)


def test_the_fifth_rejection_goes_above_all_peaks_and_stays_bounded():
    found = finding((2, "residual", 3.0))
    lift = lifts_after(found, rejections=STOP_AFTER, peaks={(2, "residual"): 6.0}, before=[])[0]
    assert lift == Lift(2, "residual", pytest.approx(7.5), is_stopped=True)
    lift = lifts_after(found, rejections=STOP_AFTER, peaks={(2, "residual"): 60.0}, before=[])[0]
    assert lift.factor == 20.0


@pytest.mark.parametrize(
    ("one", "other", "is_same"), [("residual", "change", True), ("stuck", "noise", False), ("limit", "change", False)]
)
def test_rules_that_see_the_same_are_one_pattern(one, other, is_same):
    assert (other in pattern_of(one)) is is_same
    assert (one in pattern_of(other)) is is_same


def test_a_limit_is_never_lifted_by_more_than_half():
    found = finding((2, "limit", 1.6))
    factors = [lifts_after(found, rejections=n, peaks={}, before=[])[0].factor for n in (1, STOP_AFTER)]
    assert factors == [1.25, 1.5]


def test_a_rule_without_a_level_is_stopped_by_the_fifth_rejection_alone():
    found = finding((2, "stuck", 1.0))
    assert lifts_after(found, rejections=STOP_AFTER - 1, peaks={}, before=[]) == []
    assert lifts_after(found, rejections=STOP_AFTER, peaks={}, before=[]) == [Lift(2, "stuck", 1.0, is_stopped=True)]


def test_only_what_raised_a_finding_is_lifted():
    found = finding((2, "residual", 1.3), (2, "siblings", 1.1), (5, "residual", 2.0), (2, "excess", 0.3), sensors=(2,))
    assert [(c["sensor_id"], c["feature"]) for c in carriers(found)] == [(2, "residual"), (2, "siblings")]
    quiet = finding((4, "silent", 0.0), (2, "residual", 0.0), sensors=(4,))
    assert [c["sensor_id"] for c in carriers(quiet)] == [4]
