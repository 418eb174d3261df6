"""Gathers the evidence for findings: what every rule and channel of a machine says at the moment of a change."""

from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly.columns import NEVER
from anomaly.incidents import MACHINE_RULES, Context, Sign
from anomaly.state import SENSOR_RULES, Mode, Rule, View
from fettle.model import FindingKind, MachineId, SignalKind

if TYPE_CHECKING:
    from anomaly.engine import Engine


_WIDEST = 50.0  # of a logarithm: beyond it the exponential is no number


class Evidence:
    """Reads the tables of an engine; changes nothing."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    def kind_of(self, rule: Rule, subject: int) -> FindingKind:
        """Say whether an alarm blames the machine or the sensor; `subject` is the sensor's or channel's row."""
        if rule is Rule.DEVIATION and self._engine.channels.is_drift[subject]:
            return FindingKind.SENSOR
        return FindingKind.MACHINE if rule in MACHINE_RULES else FindingKind.SENSOR

    def context(self, machine: int, at_us: int) -> Context:
        """Return what is known of a machine at the moment."""
        e = self._engine
        zone = table = source = None
        speeds = [
            self._recent(int(r))
            for r in e.sensors_of.of(machine)
            if e.sensor_meta(int(r)).kind is SignalKind.VIBRATION_VELOCITY
        ]
        speeds = [v for v in speeds if np.isfinite(v)]
        if speeds:
            row = e.zones(machine)
            zone, table, source = (
                row.zone(max(speeds)),
                row.title + (" (assumed)" if row.is_assumed else ""),
                row.source,
            )
        return Context(
            machine_id=MachineId(int(e.machines.machine_id[machine])),
            number=e.machine_meta(machine).number,
            at_us=at_us,
            mode=Mode(int(e.machines.mode[machine])).name.lower(),
            tier=int(e.machines.tier[machine]),
            model_version=e.model_version(machine),
            set_rate=e.config.false_tickets_per_machine_day,
            zone=zone,
            zone_table=table,
            zone_source=source,
        )

    def _recent(self, row: int) -> float:
        """Return the mean of a sensor over its last step, or its last sample where there is none."""
        e = self._engine
        channel = int(e.assessment.level_channel[row])
        value = float(e.channels.last_value[channel]) if channel >= 0 else float("nan")
        return value if np.isfinite(value) else float(e.sensors.last_x[row])

    def raising(self, machine: int, at_us: int, extra: dict[str, Any] | None = None) -> Context:
        """Return what is known of a machine, with what only a raised finding needs: p-value, health, outlook, feedback."""
        e = self._engine
        context = self.context(machine, at_us)
        context.p_value = self.p_value(machine)
        context.health = e.assessment.health.index(machine)
        context.time_to_limit = e.assessment.outlook(machine, at_us)
        context.known = lambda detector, family: e.assessment.known(machine, detector, family)
        context.tie_us = e.config.on_delay_steps * int(e.machines.step_us[machine])
        context.extra.update(extra or {})
        return context

    def p_value(self, machine: int) -> float | None:
        """Return the chance that a healthy channel scores as high within a day, for the channel that scores highest."""
        e = self._engine
        rows = e.channels_of.of(machine)
        if len(rows) == 0:
            return None
        c = int(rows[np.argmax(e.channels.score[rows])])
        sigmas = float(e.channels.score[c] * e.channels.alarm_sigmas[c] * e.channels.lift[c])
        rate = e.pool.rate(int(e.channels.group[c]), sigmas)
        return None if rate is None else float(-np.expm1(-rate))

    def signs(self, machine: int, kind: FindingKind) -> list[Sign]:
        """Return the evidence of one kind on a machine: active and pending alarms, and every other channel's score."""
        e = self._engine
        signs = []
        for row in e.sensors_of.of(machine):
            for rule in range(SENSOR_RULES):
                alarm = int(e.sensors.alarm[row]) + rule
                if self.kind_of(Rule(rule), int(row)) is kind and e.alarms.active[alarm]:
                    signs.append(self._sensor_sign(int(row), Rule(rule), alarm))
            if kind is FindingKind.MACHINE:
                bounds = e.assessment.bounds
                signs.extend(self._bound_sign(int(row), rule, alarm) for rule, alarm in bounds.active(int(row)))
        if kind is FindingKind.SENSOR and e.assessment.clocks.is_active(machine):
            signs.append(self._clock_sign(machine))
        signs.extend(
            self._channel_sign(int(c))
            for c in e.channels_of.of(machine)
            if e.channels.is_fitted[c] and self.kind_of(Rule.DEVIATION, int(c)) is kind
        )
        return signs

    def _sensor_sign(self, row: int, rule: Rule, alarm: int) -> Sign:
        e = self._engine
        meta = e.sensor_meta(row)
        limit, source = e.limits.alarm(meta, e.machine_meta(int(e.sensors.machine[row])))
        x = float(e.sensors.last_x[row])
        return Sign(
            rule=rule,
            view=None,
            sensor_id=meta.sensor_id,
            kind=meta.kind,
            name=meta.name,
            unit=meta.unit,
            onset_us=int(e.alarms.since[alarm]),
            score=x / limit if rule is Rule.LIMIT and limit > 0 else 1.0,
            is_up=True,
            is_step=True,
            is_active=True,
            measured=x,
            expected=None,
            low=None,
            high=None,
            limit=limit if rule is Rule.LIMIT else None,
            source=source if rule is Rule.LIMIT else "",
        )

    def _bound_sign(self, row: int, rule: Rule, alarm: int) -> Sign:
        """Return a limit on change or on rate that a sensor passed, as evidence."""
        e = self._engine
        meta, bounds = e.sensor_meta(row), e.assessment.bounds
        b = bounds.rows
        table = e.zones(int(e.sensors.machine[row]))
        expected: float | None = None
        low: float | None = None
        high: float | None = None
        unit = meta.unit
        if rule is Rule.RATE:
            measured, limit = float(b.slope[row]), bounds.rate_limit(row)
            expected, low, high, unit = 0.0, -limit, limit, f"{meta.unit}/min"
            source, size = e.limits.rate(meta)[1], abs(measured) / limit
        else:
            measured, limit, room = self._recent(row), 1.25 * table.bc, bounds.change_limit(row)
            base = float(b.baseline[row])
            if np.isfinite(base):
                expected, low, high = base, max(base - room, 0.0), base + room
                limit = min(base + room, limit)
            assumed = " (assumed)" if table.is_assumed else ""
            source = f"25 % of the B/C limit {table.bc:g} {meta.unit} from the baseline, {table.title}{assumed}"
            size = max(abs(float(b.change[row])) / room, measured / (1.25 * table.bc) if not table.is_assumed else 0.0)
        return Sign(
            rule=rule,
            view=None,
            sensor_id=meta.sensor_id,
            kind=meta.kind,
            name=meta.name,
            unit=unit,
            onset_us=int(e.alarms.since[alarm]),
            score=size,
            is_up=measured >= (expected or 0.0),
            is_step=False,
            is_active=True,
            measured=measured,
            expected=expected,
            low=low,
            high=high,
            limit=limit,
            source=source,
        )

    def _clock_sign(self, machine: int) -> Sign:
        """Return a wrong clock as evidence, on the first sensor of its machine: all of them share it."""
        e = self._engine
        clocks = e.assessment.clocks
        skew = clocks.skew(machine)
        meta = e.sensor_meta(int(e.sensors_of.of(machine)[0]))
        return Sign(
            rule=Rule.SKEW,
            view=None,
            sensor_id=meta.sensor_id,
            kind=meta.kind,
            name=meta.name,
            unit="s",
            onset_us=int(e.alarms.since[int(clocks.rows.alarm[machine])]),
            score=max(abs(skew.now_s - skew.usual_s) / skew.allowed_s, 1.0),
            is_up=skew.now_s < skew.usual_s,
            is_step=True,
            is_active=True,
            measured=skew.now_s,
            expected=skew.usual_s,
            low=skew.usual_s - skew.allowed_s,
            high=skew.usual_s + skew.allowed_s,
        )

    def _channel_sign(self, c: int) -> Sign:
        """Return what a channel says at this moment, as evidence."""
        e = self._engine
        ch, alarms = e.channels, e.alarms
        meta = e.sensor_meta(int(ch.sensor[c]))
        alarm = int(ch.alarm[c])
        since = int(alarms.since[alarm])
        view = View(int(ch.view[c]))
        width = min(float(ch.alarm_sigmas[c] * ch.lift[c] * ch.sigma[c]), _WIDEST)
        expected = float(ch.expected[c])
        if view in (View.EXCESS_HIGH, View.EXCESS_LOW):
            low, high = (None, expected + width) if view is View.EXCESS_HIGH else (expected - width, None)
        elif ch.is_log[c]:
            low, high = (expected * np.exp(-width) if ch.two_sided[c] else 0.0), expected * float(np.exp(width))
        else:
            low, high = expected - width, expected + width
        limit, source = e.limits.alarm(meta, e.machine_meta(int(ch.machine[c])))
        if view is View.SIBLINGS and meta.kind is SignalKind.CURRENT:
            limit, source = float("inf"), (e.limits.phase_unbalance or (0.0, ""))[1]
        warned = int(ch.warned_at[c])
        period = max(float(e.machines.step_us[ch.machine[c]]), float(np.nan_to_num(e.sensors.period_us[ch.sensor[c]])))
        onset = since if since > NEVER else int(ch.level_at[c])
        return Sign(
            rule=Rule.DEVIATION,
            view=view,
            sensor_id=meta.sensor_id,
            kind=meta.kind,
            name=meta.name,
            unit=meta.unit,
            onset_us=onset,
            score=float(ch.score[c]),
            is_up=bool(ch.level[c] >= 0) if view is not View.EXCESS_LOW else False,
            is_step=warned > NEVER and onset - warned <= 4 * period,
            is_active=since > NEVER,
            measured=float(ch.last_value[c]),
            expected=expected,
            low=low,
            high=high,
            limit=limit if np.isfinite(limit) else None,
            source=source if np.isfinite(limit) or view is View.SIBLINGS else "",
            is_drift=bool(ch.is_drift[c]),
        )
