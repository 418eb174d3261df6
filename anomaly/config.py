"""The one frozen configuration of detection. Its digest is part of every model version.

Times are in event time. Where a rule names both samples and time, both must be met: that is how one configuration serves
signals sampled each second and each hour.
"""

import hashlib
import json
from dataclasses import asdict, dataclass

from fettle.model import SignalKind


@dataclass(frozen=True, slots=True)
class Prior:
    """What is assumed of a channel before its own baseline says better.

    `spread` is the uncertainty of its level, relative for channels on a logarithmic scale, in units of the signal
    otherwise. It shrinks as the baseline grows: by n_prior/(n_prior + n), n in hours of covered baseline, to a power.
    """

    spread: float
    hours: float = 6.0
    power: float = 1.0

    def doubt(self, hours: float) -> float:
        """Return what is left of the uncertainty after so many hours."""
        return float(self.spread * (self.hours / (self.hours + hours)) ** self.power)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Parameters of the engine. `false_tickets_per_machine_day` is the set rate that calibration aims at."""

    false_tickets_per_machine_day: float = 0.01

    fine_step_s: float = 60.0  # analysis step while the baseline is shorter than a day
    coarse_step_s: float = 600.0  # and afterwards; a slower sensor's own period if that is longer
    fine_hours: float = 24.0

    first_fit_steps: int = 30
    fit_hours: tuple[float, ...] = (0.5, 1, 2, 4, 8, 16, 24, 36, 48, 72, 120, 168, 240, 336)
    own_model_hours: float = 168.0  # tier 2 from here
    own_model_steps: int = 500
    history_steps: int = 2040

    smooth_steps: float = 6.0  # time constant of the EWMA of the residuals: an hour of steps of ten minutes
    multiplier: float = 8.0  # alarm level in standard deviations of the smoothed residual, until it is calibrated
    lowest_multiplier: float = 2.0
    highest_multiplier: float = 12.0
    proof_days: float = 4.0  # excursions count once the machine stayed well for so long
    calibration_days: float = 300.0  # channel-days of a group before its alarm level is calibrated
    calibration_trust_days: float = 1000.0  # three quarters of the way from the start value to what the group shows
    rate_margin: float = 0.8  # calibrate to this share of the set rate
    warn_share: float = 0.5  # of the alarm level: learning stops here
    clear_share: float = 0.6  # of the alarm level: below this an alarm may clear
    reseed_taus: float = 10.0
    freeze_hours: float = 24.0  # a provisional model stops learning at most this long, or as long as it has learned
    down_share: float = 0.5  # a temperature below what is expected counts less
    adapt_days: float = 5.0  # slow following of a healthy machine
    adapt_cap: float = 3.0  # never further than this many sigma from the accepted baseline
    season_k_per_day: float = 0.25  # but a temperature may follow the seasons at this rate
    season_most_k: float = 20.0

    on_delay_steps: int = 3
    leap_noise: float = 3.0  # three residuals in a row count at once, less so many sigma of their scatter
    off_delay_s: float = 3600.0
    off_delay_steps: int = 6
    off_delay_share: float = 0.25  # of the time it was raised: what lasted days is not over in an hour
    off_delay_most_s: float = 86400.0
    reopen_s: float = 43200.0

    limit_on_samples: int = 3
    limit_on_s: float = 60.0
    limit_clear_share: float = 0.95
    limit_off_s: float = 3600.0
    limit_off_samples: int = 10

    running_on_share: float = 0.15  # of the 90th percentile of the load
    running_off_share: float = 0.10
    idle_vibration_share: float = 0.3  # of the usual level, where no load is measured
    excess_unit: float = 0.02  # overload counts in 2 % of the limit of the baseline
    drift_days: float = 1.0  # over which a temperature's deviation is compared with the heat of the load
    drift_share: float = 0.8  # that is there without any heat: the sensor's doing
    drift_range: float = 0.35  # if the heat itself varied by at least so much of its mean
    drift_calm: float = 1.0  # and the deviation scatters less than so much of the heat's scatter
    phase_unbalance: float = 0.10  # of the phases' median: investigate (NEMA MG 1)
    excess_alarm: float = 0.5  # raised above this much smoothed excess
    excess_near: float = 0.9  # only loads beyond this share of the limit say anything about it
    excess_on_steps: int = 6  # near its limit for an hour: a product may be new
    excess_hours: float = 168.0  # baseline before an excess is believed: its heaviest product may not have come yet

    stuck_false_per_day: float = 0.0005
    stuck_least: int = 10
    stuck_unknown: int = 60
    clean_samples: int = 60
    silent_periods: float = 4.0
    lost_periods: float = 10.0  # a whole machine: its link may be down for a moment
    lost_s: float = 900.0
    lost_together: int = 3  # so many machines of a site, at least half of it, are one finding
    grown_samples: int = 200  # before that a sensor's own habits are not known
    spike_roughness: float = 8.0  # a turn of so many mean bends is a spike
    spike_step_share: float = 1.2  # if it is larger than the largest step of the baseline
    start_share: float = 0.15  # of what follows: a peak that comes from below it is the start of a machine
    spike_memory_s: float = 21600.0
    spikes_alarm: float = 5.0  # so many of late, or three times the most of the baseline
    leap_share: float = 2.0  # a step of so many largest steps of the baseline cannot be the machine
    noise_ratio: float = 3.0  # mean bend over its usual one, either way (9 in variance)
    noise_spreads: float = 5.0  # and beyond so many mean deviations of the baseline
    noise_steps: int = 6
    noise_samples: int = 60

    def digest(self) -> str:
        """Return eight hex digits that change whenever a parameter does."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:8]


VIBRATION = (SignalKind.VIBRATION_VELOCITY, SignalKind.VIBRATION_ACCELERATION)
LOADS = (SignalKind.CURRENT, SignalKind.POWER, SignalKind.SPEED)
UNSCORED = (SignalKind.STATE, SignalKind.COUNT)
KINDS = tuple(SignalKind)

PRIORS: dict[SignalKind, Prior] = {
    SignalKind.VIBRATION_VELOCITY: Prior(0.10, hours=10.0),
    SignalKind.VIBRATION_ACCELERATION: Prior(0.10, hours=10.0),
    SignalKind.TEMPERATURE: Prior(8.0, hours=12.0),
}
RELATIVE_PRIOR = Prior(0.10, hours=10.0)
EXCESS_PRIOR = Prior(1.0, hours=36.0, power=2.0)  # load ranges widen for days
SIBLING_PRIOR = Prior(0.035, hours=10.0)
