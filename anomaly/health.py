r"""How healthy each machine is, and the trends from which the time to a limit is told (ISO 13374 blocks HA and PA).

    health    1 ────╮            1 - min(1, D / D at alarm), D the largest score of the machine's channels, smoothed
                    ╰──╮___ 0    0 from the alarm level on; it may recover, after maintenance
    trend     . . . . :.::'      what is left when load is explained, in blocks: 2 h for four days, 12 h for thirty
                        \_ 90 % interval to the limit, or no estimate

The trend of a channel is measured less expected, put back on the value usual for it: a varying load leaves no trend.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly.columns import NEVER, AnyArray, BoolArray, Columns, CountArray, FloatArray, IntArray, column
from anomaly.prognosis import Extrapolation, Span, mann_kendall, time_to_limit
from anomaly.state import View

if TYPE_CHECKING:
    from anomaly.engine import Engine

FINE_US, FINE = 2 * 3_600_000_000, 48
COARSE_US, COARSE = 12 * 3_600_000_000, 60
_SMOOTH_S = 3.0 * 3600.0
_USUAL_S = 2.0 * 86400.0
_LEAST_BLOCKS = 12
_DAY_US = 86_400_000_000
_HOW = Extrapolation(blocks=40, resamples=120)
_RECENT_US, _RISING = _DAY_US, 0.2
_LIKELY = 1.1  # a smoothed score below the alarm level by this factor is not worth an estimate


class Condition(Columns):
    """One row per machine: the smoothed score in alarm levels, NaN until something is learned."""

    deviation: FloatArray = column("f8", float("nan"))
    at: IntArray = column("i8", NEVER)
    refreshed_at: IntArray = column("i8", NEVER)


class Trends(Columns):
    """One row per channel: block means of its residual, newest last; NaN where nothing was judged."""

    fine: AnyArray = column("f4", float("nan"), (FINE,))
    fine_block: IntArray = column("i8", NEVER)
    fine_total: FloatArray = column("f8", 0.0)
    fine_n: CountArray = column("i4", 0)
    coarse: AnyArray = column("f4", float("nan"), (COARSE,))
    coarse_block: IntArray = column("i8", NEVER)
    coarse_total: FloatArray = column("f8", 0.0)
    coarse_n: CountArray = column("i4", 0)
    usual: FloatArray = column("f8", float("nan"))  # the expected value, on the scale of the channel, over days
    fitted_us: IntArray = column("i8", -1)  # of the model that the blocks were made with


@dataclass(frozen=True, slots=True)
class Outlook:
    """Time left until the limit of one sensor."""

    sensor: int
    limit: float
    source: str
    span: Span
    at_us: int

    def as_dict(self, *, sensor_id: int, name: str, unit: str) -> dict[str, Any]:
        """Return JSON-able values; `high_us` is None where the rise may stop before the limit."""
        high = self.span.high * _DAY_US
        return {
            "sensor_id": sensor_id,
            "sensor": name,
            "unit": unit,
            "limit": self.limit,
            "source": self.source,
            "low_us": round(self.span.low * _DAY_US),
            "high_us": round(high) if np.isfinite(high) else None,
            "confidence": 0.9,
            "window_us": round(self.span.window_days * _DAY_US),
            "is_logarithmic": self.span.logarithmic,
            "p_no_rise": self.span.p_value,
            "at_us": self.at_us,
        }


class Health:
    """The condition of the machines of an engine and the trends of its channels."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine
        self.condition = Condition()
        self.trends = Trends()

    def grow(self) -> None:
        """Give every machine and channel its row."""
        self.condition.add(self._engine.machines.n - self.condition.n)
        self.trends.add(self._engine.channels.n - self.trends.n)

    def index(self, machine: int) -> float | None:
        """Return the health of a machine, 1 well and 0 at the alarm level; None before anything is learned."""
        deviation = float(self.condition.deviation[machine])
        return None if np.isnan(deviation) else 1.0 - min(1.0, deviation)

    def indexes(self) -> list[tuple[int, float, int]]:
        """Return (machine id, health, event time) of every machine that has one."""
        e, condition = self._engine, self.condition
        known = np.flatnonzero(np.isfinite(condition.deviation))
        return [
            (int(e.machines.machine_id[m]), float(1.0 - min(1.0, condition.deviation[m])), int(condition.at[m]))
            for m in known
        ]

    def step(
        self,
        which: IntArray,
        at: IntArray,
        c: IntArray,
        c_owner: IntArray,
        residual: FloatArray,
        expected: FloatArray,
        score: FloatArray,
        judged: BoolArray,
    ) -> None:
        """Take one closed step of the machines `which`; the other arrays are by channel, `c_owner` its place in `which`."""
        ch = self._engine.channels
        worst = np.full(len(which), np.nan)
        seen = judged & ch.is_fitted[c]
        np.fmax.at(worst, c_owner[seen], score[seen])
        condition = self.condition
        before = condition.deviation[which]
        elapsed_s = np.minimum((at - condition.at[which]) / 1e6, 1e9)
        weight = np.where(np.isfinite(before), 1.0 - np.exp(-elapsed_s / _SMOOTH_S), 1.0)
        moved = np.where(np.isfinite(before), before, 0.0) + weight * (worst - np.nan_to_num(before))
        known = np.isfinite(worst)
        condition.deviation[which] = np.where(known, moved, before)
        condition.at[which] = np.where(known, at, condition.at[which])
        if seen.any():
            self._keep(c[seen], at[c_owner[seen]], residual[seen], expected[seen])

    def _keep(self, c: IntArray, at: IntArray, residual: FloatArray, expected: FloatArray) -> None:
        t, ch = self.trends, self._engine.channels
        anew = t.fitted_us[c] != ch.fitted_us[c]
        if anew.any():
            rows = c[anew]
            t.fine[rows], t.coarse[rows], t.usual[rows] = np.nan, np.nan, np.nan
            t.fine_n[rows] = t.coarse_n[rows] = 0
            t.fine_total[rows] = t.coarse_total[rows] = 0.0
            t.fitted_us[rows] = ch.fitted_us[rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            usual = np.where(ch.is_log[c], np.log(expected), expected)
        usual = np.where(np.isfinite(usual), usual, t.usual[c])
        before = t.usual[c]
        period_s = np.maximum(self._engine.machines.step_us[ch.machine[c]], 1) / 1e6
        share = 1.0 - np.exp(-period_s / _USUAL_S)
        t.usual[c] = np.where(np.isfinite(before), before + share * (usual - before), usual)
        for name, length in (("fine", FINE_US), ("coarse", COARSE_US)):
            self._block(name, length, c, at, residual)

    def _block(self, name: str, length_us: int, c: IntArray, at: IntArray, residual: FloatArray) -> None:
        """Add to the open block of each channel; close it and shift the ring where a later one begins."""
        t = self.trends
        blocks, total, count = getattr(t, name + "_block"), getattr(t, name + "_total"), getattr(t, name + "_n")
        block = (at - 1) // length_us
        later = block > blocks[c]
        if later.any():
            rows, ring = c[later], getattr(t, name)
            width = ring.shape[1]
            passed = np.minimum(block[later] - blocks[rows], width)
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = np.where(count[rows] > 0, total[rows] / count[rows], np.nan)
            held = ring[rows]
            held[:, :-1] = held[:, 1:]
            held[:, -1] = mean
            skipped = passed > 1
            if skipped.any():  # blocks without data are holes, not neighbours
                place = np.arange(width)[None, :] + (passed[skipped] - 1)[:, None]
                moved = np.take_along_axis(held[skipped], np.minimum(place, width - 1), axis=1)
                held[skipped] = np.where(place < width, moved, np.nan)
            ring[rows] = held
            total[rows], count[rows] = 0.0, 0
            blocks[rows] = block[later]
        total[c] += residual
        count[c] += 1

    def trend(self, channel: int) -> tuple[IntArray, FloatArray]:
        """Return (middles of blocks, values) of a channel, in the unit of its sensor at its usual load, oldest first."""
        t, ch = self.trends, self._engine.channels
        parts: list[tuple[IntArray, FloatArray]] = []
        fine_at, fine = self._ring(channel, "fine", FINE_US)
        coarse_at, coarse = self._ring(channel, "coarse", COARSE_US)
        older = coarse_at < (fine_at[0] if len(fine_at) else np.iinfo(np.int64).max) - COARSE_US // 2
        parts = [(coarse_at[older], coarse[older]), (fine_at, fine)]
        at, residual = (np.concatenate(column) for column in zip(*parts, strict=True))
        usual = float(t.usual[channel])
        return at, np.exp(usual + residual) if ch.is_log[channel] else usual + residual

    def _ring(self, channel: int, name: str, length_us: int) -> tuple[IntArray, FloatArray]:
        t = self.trends
        last = int(getattr(t, name + "_block")[channel])
        ring = getattr(t, name)[channel].astype(np.float64)
        count = int(getattr(t, name + "_n")[channel])
        newest = float(getattr(t, name + "_total")[channel]) / count if count else np.nan
        values = np.append(ring, newest)
        at = (last - len(ring) + np.arange(len(values))) * length_us + length_us // 2
        known = np.isfinite(values)
        return at[known], values[known]

    def outlook(self, machine: int, at_us: int) -> Outlook | None:
        """Return the time left until the first limit that a rising channel of a machine reaches, or None: no estimate."""
        e = self._engine
        ch = e.channels
        best: Outlook | None = None
        for c in e.channels_of.of(machine).tolist():
            row = int(ch.sensor[c])
            limit = float(e.sensors.alarm_at[row])
            if not np.isfinite(limit) or ch.view[c] not in (View.LEVEL, View.EXCESS_HIGH) or not ch.is_fitted[c]:
                continue
            if ch.score[c] * _LIKELY < e.config.warn_share:
                continue
            at, values = self.trend(c)
            if len(at) < _LEAST_BLOCKS or values[-1] >= limit:
                continue
            # a step rose once and rises no more: what is recent must rise as well
            recent = values[at > at[-1] - _RECENT_US]
            if mann_kendall(recent[-_LEAST_BLOCKS:]) > _RISING:
                continue
            span = time_to_limit(at, values, limit, how=_HOW, seed=int(e.sensors.sensor_id[row]))
            if span is not None and (best is None or span.middle < best.span.middle):
                source = e.limits.alarm(e.sensor_meta(row), e.machine_meta(machine))[1]
                best = Outlook(row, limit, source, span, at_us)
        return best

    def dump(self) -> dict[str, AnyArray]:
        return {**self.condition.dump("condition"), **self.trends.dump("trend")}

    def load(self, arrays: dict[str, AnyArray]) -> None:
        """Take the tables of a state; one from before there was health starts without."""
        if "condition.at" in arrays:
            self.condition.load("condition", arrays)
            self.trends.load("trend", arrays)
