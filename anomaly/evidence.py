"""Gathers the evidence for findings: what every rule and channel of a machine says at the moment of a change."""

from typing import TYPE_CHECKING

import numpy as np

from anomaly.columns import NEVER
from anomaly.incidents import Context, Sign
from anomaly.state import SENSOR_RULES, Mode, Rule, View
from fettle.model import FindingKind, MachineId, SignalKind

if TYPE_CHECKING:
    from anomaly.engine import Engine


class Evidence:
    """Reads the tables of an engine; changes nothing."""

    def __init__(self, engine: "Engine") -> None:
        self._engine = engine

    def kind_of(self, rule: Rule, subject: int) -> FindingKind:
        """Say whether an alarm blames the machine or the sensor; `subject` is the sensor's or channel's row."""
        if rule is Rule.DEVIATION and self._engine.channels.is_drift[subject]:
            return FindingKind.SENSOR
        return FindingKind.MACHINE if rule in {Rule.LIMIT, Rule.DEVIATION} else FindingKind.SENSOR

    def context(self, machine: int, at_us: int) -> Context:
        """Return what is known of a machine at the moment."""
        e = self._engine
        zone = table = source = None
        speeds = [
            float(e.sensors.last_x[r])
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

    def _channel_sign(self, c: int) -> Sign:
        """Return what a channel says at this moment, as evidence."""
        e = self._engine
        ch, alarms = e.channels, e.alarms
        meta = e.sensor_meta(int(ch.sensor[c]))
        alarm = int(ch.alarm[c])
        since = int(alarms.since[alarm])
        view = View(int(ch.view[c]))
        width = float(ch.alarm_sigmas[c] * ch.lift[c] * ch.sigma[c])
        expected = float(ch.expected[c])
        if view in (View.EXCESS_HIGH, View.EXCESS_LOW):
            low, high = (None, expected + width) if view is View.EXCESS_HIGH else (expected - width, None)
        elif ch.is_log[c]:
            low, high = (expected * np.exp(-width) if ch.two_sided[c] else 0.0), expected * float(np.exp(width))
        else:
            low, high = expected - width, expected + width
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
            is_drift=bool(ch.is_drift[c]),
        )
