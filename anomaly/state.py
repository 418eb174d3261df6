"""The tables of the engine: what is kept per machine, per sensor, per channel and per alarm.

A channel is one way of looking at a sensor: its own level, its difference from its siblings, its excess over the
baseline. An alarm is one rule on one sensor or channel.
"""

from enum import IntEnum

from anomaly.columns import (
    NEVER,
    BoolArray,
    Columns,
    CountArray,
    FloatArray,
    IntArray,
    ShortArray,
    SmallArray,
    column,
)
from anomaly.model import FEATURES, LAG_TAUS_S


class View(IntEnum):
    """How a channel looks at its sensor."""

    LEVEL = 0  # residual against load, thermal memory and time of day
    SIBLINGS = 1  # logarithm less the median of the machine's channels of the same kind
    EXCESS_HIGH = 2  # above the top of the baseline
    EXCESS_LOW = 3  # below the bottom of the running baseline


class Rule(IntEnum):
    """The rules on a sensor's samples; a channel has the one rule that its score is too high."""

    LIMIT = 0  # an absolute limit is passed: the machine's fault, not the sensor's
    STUCK = 1
    INVALID = 2  # not finite, marked bad, outside the believable range
    SILENT = 3
    SPIKE = 4
    OFFSET = 5
    UNIT = 6
    NOISE = 7
    DEVIATION = 8
    CHANGE = 9  # vibration too far from its baseline: the machine's fault
    RATE = 10  # faster than its unit allows: the machine's fault
    SKEW = 11  # the clock of a machine's device


SENSOR_RULES = 8


class Tier(IntEnum):
    LIMITS = 0
    PROVISIONAL = 1
    OWN_MODEL = 2


class Mode(IntEnum):
    UNKNOWN = 0
    OFF = 1
    SWITCHING = 2
    RUNNING = 3


class Machines(Columns):
    machine_id: IntArray = column("i8", 0)
    step_us: IntArray = column("i8", 0)
    open_step: IntArray = column("i8", NEVER)
    close_at: IntArray = column("i8", NEVER)
    last_step_us: IntArray = column("i8", NEVER)
    seen_us: IntArray = column("i8", NEVER)
    load_row: IntArray = column("i8", -1)
    held_load: FloatArray = column("f8", float("nan"), (3,))  # its last mean, least and most, and when
    load_at: IntArray = column("i8", NEVER)
    load_scale: FloatArray = column("f8", float("nan"))
    load_low: FloatArray = column("f8", -float("inf"))
    load_high: FloatArray = column("f8", float("inf"))
    lag: FloatArray = column("f8", float("nan"), (2 * len(LAG_TAUS_S),))  # thermal memory of the raw load
    lag_low: ShortArray = column("f4", -float("inf"), (2 * len(LAG_TAUS_S),))  # seen in the baseline
    lag_high: ShortArray = column("f4", float("inf"), (2 * len(LAG_TAUS_S),))
    load_floor: FloatArray = column("f8", float("inf"))  # least running sample of the baseline
    knows_off: BoolArray = column("?", 0)
    is_sure: BoolArray = column("?", 0)  # that it runs when its load says so
    lag_since: IntArray = column("i8", NEVER)
    mode: IntArray = column("i8", Mode.UNKNOWN)
    tier: IntArray = column("i8", Tier.LIMITS)
    version: IntArray = column("i8", 0)
    newest: IntArray = column("i8", 0)  # the highest number ever given: a version put back does not lower it
    covered_us: IntArray = column("i8", 0)
    frozen_us: IntArray = column("i8", 0)
    learned_steps: IntArray = column("i8", 0)
    learned_us: IntArray = column("i8", 0)
    next_fit: IntArray = column("i8", 0)
    trained_from: IntArray = column("i8", NEVER)  # the baseline of the present fit
    trained_until: IntArray = column("i8", NEVER)
    is_learning: BoolArray = column("?", 1)
    proof_since: IntArray = column("i8", NEVER)
    is_spoilt: BoolArray = column("?", 0)  # a long alarm since then: what was seen proves nothing
    is_silent: BoolArray = column("?", 0)
    historical: BoolArray = column("?", 0)


class Sensors(Columns):
    sensor_id: IntArray = column("i8", 0)
    machine: IntArray = column("i8", 0)
    alarm: IntArray = column("i8", 0)  # row of its first rule
    kind: SmallArray = column("i2", 0)
    # limits
    low: FloatArray = column("f8", -float("inf"))
    high: FloatArray = column("f8", float("inf"))
    alarm_at: FloatArray = column("f8", float("inf"))
    limit_lift: FloatArray = column("f8", 1.0)  # what rejections made of the limit
    change_lift: FloatArray = column("f8", 1.0)  # and of how far it may leave its baseline
    stuck_at: CountArray = column("i4", 60)
    rest_below: FloatArray = column("f8", -float("inf"))  # a load below this stands still
    # the last samples
    last_ts: IntArray = column("i8", NEVER)
    last_x: FloatArray = column("f8", float("nan"))
    prev_x: FloatArray = column("f8", float("nan"))
    period_us: FloatArray = column("f8", float("nan"))
    seen: CountArray = column("i4", 0)
    late: CountArray = column("i4", 0)
    clean: CountArray = column("i4", 1 << 20)  # samples since the last one that was flagged
    run: CountArray = column("i4", 0)  # identical samples in a row
    # what is usual between neighbours
    same: CountArray = column("i4", 0)
    pairs: CountArray = column("i4", 0)
    longest_run: CountArray = column("i4", 0)
    rough: FloatArray = column("f8", 0.0)  # mean bend: how far a sample is off the middle of its neighbours
    largest_step: FloatArray = column("f8", 0.0)
    spikes: FloatArray = column("f8", 0.0)  # of late, decaying
    usual_spikes: FloatArray = column("f8", 0.0)
    spiked_at: IntArray = column("i8", NEVER)
    offset: FloatArray = column("f8", 0.0)  # of a sensor that jumped
    # the machine's state, kept here so that a tick gathers nothing
    starts_at: IntArray = column("i8", NEVER)  # of the open step
    ends_at: IntArray = column("i8", NEVER)
    close_at: IntArray = column("i8", NEVER)
    is_off: BoolArray = column("?", 0)
    is_running: BoolArray = column("?", 0)
    is_learning: BoolArray = column("?", 1)
    # sums over the open step, and over the one after it
    count: CountArray = column("i4", 0)
    total: FloatArray = column("f8", 0.0)
    bends: FloatArray = column("f8", 0.0)
    least: FloatArray = column("f8", float("inf"))
    most: FloatArray = column("f8", -float("inf"))
    next_count: CountArray = column("i4", 0)
    next_total: FloatArray = column("f8", 0.0)
    next_bends: FloatArray = column("f8", 0.0)
    next_least: FloatArray = column("f8", float("inf"))
    next_most: FloatArray = column("f8", -float("inf"))
    # roughness of running steps
    usual_noise: FloatArray = column("f8", 0.0)
    usual_noise_spread: FloatArray = column("f8", 0.0)
    usual_noise_steps: CountArray = column("i4", 0)
    noise_size: FloatArray = column("f8", 0.0)  # of late


class Channels(Columns):
    sensor: IntArray = column("i8", 0)
    machine: IntArray = column("i8", 0)
    view: IntArray = column("i8", View.LEVEL)
    alarm: IntArray = column("i8", 0)
    is_log: BoolArray = column("?", 0)
    needs_running: BoolArray = column("?", 0)
    two_sided: BoolArray = column("?", 0)
    is_fitted: BoolArray = column("?", 0)
    coefficients: ShortArray = column("f4", 0.0, (FEATURES,))
    sigma: FloatArray = column("f8", float("nan"))  # of the smoothed residual, prior included
    noise: FloatArray = column("f8", float("nan"))  # of the single residual
    least: ShortArray = column("f4", -float("inf"))  # no value below or above is expected: the baseline, and a margin
    most: ShortArray = column("f4", float("inf"))
    edge: FloatArray = column("f8", float("nan"))  # limit of the baseline, for the excess views
    shift: FloatArray = column("f8", 0.0)  # slow, capped adaptation of the expected value
    level: FloatArray = column("f8", 0.0)
    level_at: IntArray = column("i8", NEVER)
    last_value: FloatArray = column("f8", float("nan"))
    residuals: ShortArray = column("f4", float("nan"), (2,))  # the two before this one
    fitted_us: IntArray = column("i8", 0)  # length of the baseline the fit stands on
    expected: FloatArray = column("f8", float("nan"))
    group: IntArray = column("i8", 0)  # channels calibrated together
    alarm_sigmas: FloatArray = column("f8", 8.0)
    lift: FloatArray = column("f8", 1.0)  # what rejections made of the alarm level
    sigmas: ShortArray = column("f4", 0.0, (2,))  # the two sizes before this one
    excursion: FloatArray = column("f8", 0.0)  # its peak so far, in sigmas; 0 outside
    peaks: ShortArray = column("f4", 0.0, (6,))  # the largest of those that ended and wait for their proof
    peaks_n: IntArray = column("i8", 0)
    watched_days: FloatArray = column("f8", 0.0)
    score: FloatArray = column("f8", 0.0)  # 1 is the alarm level
    peak: FloatArray = column("f8", 0.0)  # of this excursion or the last one, in alarm levels without lift
    flowed: BoolArray = column("?", 0)  # a phase through which current went steadily
    is_drift: BoolArray = column("?", 0)  # raised, and laid to the sensor
    # of late: means of heat and residual, variance of heat, covariance, variance of residual
    heat: FloatArray = column("f8", 0.0, (5,))
    warned_at: IntArray = column("i8", NEVER)


class Alarms(Columns):
    since: IntArray = column("i8", NEVER)  # first sample of the excursion
    over: CountArray = column("i4", 0)
    under: CountArray = column("i4", 0)
    active: BoolArray = column("?", 0)
    raised_at: IntArray = column("i8", NEVER)
    is_muted: BoolArray = column("?", 0)  # raised for nobody: rejected too often
