"""The fold: committed batches in arrival order in, changes of findings out.

    batch -> ticks (validity, limits, means) -> steps (modes, residuals, scores) -> alarms -> incidents -> events

State is arrays, one row per machine, sensor, channel and alarm. A sample at or before its sensor's last event time is
late: it is counted and never rewinds state. A machine's step closes when its newest event time passes the end of the
step by a grace; from then on samples of that step are too late for it.
"""

import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from anomaly import ticks
from anomaly.assessment import Assessment
from anomaly.calibrate import PeakPool
from anomaly.columns import NEVER, AnyArray, BoolArray, FloatArray, ForeignState, Groups, IntArray
from anomaly.config import KINDS, LOADS, UNSCORED, VIBRATION, EngineConfig
from anomaly.evidence import Evidence
from anomaly.finding import Finding, FindingEvent, MachineMeta, SensorMeta
from anomaly.fitting import channel_views
from anomaly.incidents import Incidents
from anomaly.limits import Limits, ZoneTable, shipped_limits
from anomaly.state import SENSOR_RULES, Alarms, Channels, Machines, Mode, Rule, Sensors, Tier, View
from anomaly.steps import Steps
from anomaly.training import Training
from anomaly.validity import Rows, Validity
from fettle.model import FindingKind, Flag, MachineId, Quality, SensorId, SignalKind
from fettle.wire import READING_DTYPE, ReadingArray

STATE_VERSION = 1
MACHINES_A_TURN = 256
_SUMS = (
    ("count", "next_count", 0),
    ("total", "next_total", 0.0),
    ("bends", "next_bends", 0.0),
    ("least", "next_least", np.inf),
    ("most", "next_most", -np.inf),
)


def _as_slice(rows: IntArray) -> Rows:
    """Return sorted, distinct rows as a slice if they have no holes: that is several times as fast."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows


def _turn_of(ids: IntArray) -> FloatArray:
    """Return a number in [0, 1) for each machine id that depends on nothing else: which machines share an engine does not matter.

    As few turns as keep a tick short, since closing one machine costs almost as much as closing hundreds together: ids that
    follow each other share one, each further turn halves the widest gap (van der Corput 1935).
    """
    block = np.maximum(ids - 1, 0) // MACHINES_A_TURN
    turn, share = np.zeros(len(ids)), 0.5
    while block.any():
        turn += share * (block & 1)
        block, share = block >> 1, share / 2
    return turn


class Engine:
    """Detection for a set of machines; deterministic in the batches it is given and their order."""

    def __init__(self, config: EngineConfig | None = None, *, limits: Limits | None = None) -> None:
        self.config = config or EngineConfig()
        self.limits = limits or shipped_limits()
        share = self.limits.phase_unbalance
        if share is not None and share[0] != self.config.phase_unbalance:  # the table of limits is what a plant edits
            self.config = replace(self.config, phase_unbalance=share[0])
        self.machines = Machines()
        self.sensors = Sensors()
        self.channels = Channels()
        self.alarms = Alarms()
        self.training = Training(self.config.history_steps)
        self.pool = PeakPool(
            len(KINDS) * len(View),
            least_days=self.config.calibration_days,
            trust_days=self.config.calibration_trust_days,
            default=self.config.multiplier,
            lowest=self.config.lowest_multiplier,
            highest=self.config.highest_multiplier,
        )
        self.incidents = Incidents(reopen_us=int(self.config.reopen_s * 1e6))
        self.unknown_samples = 0
        self.on_fit: Callable[[int], None] | None = None  # told the id of a machine whose model was fitted anew
        self._machine_meta: list[MachineMeta] = []
        self._sensor_meta: list[SensorMeta] = []
        self._zones: list[ZoneTable] = []
        self._machine_of: dict[int, int] = {}
        self._sensor_of: dict[int, int] = {}
        self.raised: dict[int, list[int]] = defaultdict(list)
        self.cleared: dict[int, list[int]] = defaultdict(list)
        self._alarm_subject: list[tuple[Rule, int]] = []  # rule, and the sensor row or channel row it judges
        self._set_aside: frozenset[int] = frozenset()
        self.assessment = Assessment(self)
        self._index()

    # -- registration ------------------------------------------------------------------------------------------------

    def register(self, machines: Iterable[MachineMeta], sensors: Iterable[SensorMeta]) -> None:
        """Make machines and sensors known; those already known keep their state and take new settings."""
        touched: set[int] = set()
        for meta in machines:
            row = self._machine_of.get(int(meta.machine_id))
            if row is None:
                row = int(self.machines.add(1)[0])
                self._machine_of[int(meta.machine_id)] = row
                self.machines.machine_id[row] = meta.machine_id
                self.machines.step_us[row] = int(self.config.fine_step_s * 1e6)
                self._machine_meta.append(meta)
                self._zones.append(self.limits.zones(meta))
            else:
                self._machine_meta[row] = meta
                self._zones[row] = self.limits.zones(meta)
            touched.add(row)
        for sensor in sensors:
            known = self._sensor_of.get(int(sensor.sensor_id))
            machine = self._machine_of[int(sensor.machine_id)]
            if known is not None:
                self._sensor_meta[known] = sensor
                continue
            row = int(self.sensors.add(1)[0])
            self._sensor_of[int(sensor.sensor_id)] = row
            self._sensor_meta.append(sensor)
            self.sensors.sensor_id[row] = sensor.sensor_id
            self.sensors.machine[row] = machine
            self.sensors.kind[row] = KINDS.index(sensor.kind)
            self.sensors.stuck_at[row] = 1 << 30 if sensor.kind in UNSCORED else self.config.stuck_unknown
            first = self.alarms.add(SENSOR_RULES)
            self.sensors.alarm[row] = first[0]
            self._alarm_subject.extend((Rule(rule), row) for rule in range(SENSOR_RULES))
            touched.add(machine)
        self.apply_limits()
        groups = Groups(self.sensors.machine, self.machines.n)
        for machine in sorted(touched):
            self._make_channels(machine, groups.of(machine))
        self._index()

    def apply_limits(self) -> None:
        """Set the limits of all sensors from the table and from what rejections made of it."""
        for row, meta in enumerate(self._sensor_meta):
            self.sensors.low[row], self.sensors.high[row] = self.limits.believable(meta)
            machine = self._machine_meta[int(self.sensors.machine[row])]
            self.sensors.alarm_at[row] = self.limits.alarm(meta, machine)[0] * self.sensors.limit_lift[row]

    def _make_channels(self, machine: int, rows: IntArray) -> None:
        kinds = [KINDS[int(k)] for k in self.sensors.kind[rows]]
        if self.machines.load_row[machine] < 0:
            for kind in LOADS:
                if kind in kinds:
                    self.machines.load_row[machine] = rows[kinds.index(kind)]
                    self.sensors.rest_below[rows[kinds.index(kind)]] = np.inf  # until its scale is known
                    break
        for row, kind in zip(rows, kinds, strict=True):
            if kind is SignalKind.CURRENT and int(row) != int(self.machines.load_row[machine]):
                self.sensors.rest_below[row] = 0.0  # a phase without current is lost, not stuck
        own = {
            (int(self.channels.sensor[c]), int(self.channels.view[c]))
            for c in np.flatnonzero(self.channels.machine == machine)
        }
        is_new = False
        for row, kind in zip(rows, kinds, strict=True):
            is_load = int(row) == int(self.machines.load_row[machine])
            for view in channel_views(kind, is_load=is_load, siblings=kinds.count(kind)):
                if (int(row), int(view)) in own:
                    continue
                is_new = True
                c = int(self.channels.add(1)[0])
                self.channels.sensor[c] = row
                self.channels.machine[c] = machine
                self.channels.view[c] = view
                self.channels.group[c] = KINDS.index(kind) * len(View) + view
                self.channels.alarm_sigmas[c] = self.config.multiplier
                self.channels.needs_running[c] = kind in VIBRATION or view is View.EXCESS_LOW
                is_phase = view is View.SIBLINGS and kind not in VIBRATION
                self.channels.two_sided[c] = is_phase or (view is View.LEVEL and kind not in VIBRATION)
                self.channels.alarm[c] = self.alarms.add(1)[0]
                self._alarm_subject.append((Rule.DEVIATION, c))
        if is_new:
            self.machines.is_learning[machine] = True
            self.machines.learned_us[machine] = 0
            self.machines.learned_steps[machine] = 0
            self.machines.next_fit[machine] = 0
            self.training.open(machine, rows)

    def set_aside(self, machine_ids: Iterable[int]) -> None:
        """Take no more samples of these machines; what is known of them stays as it is."""
        self._set_aside = frozenset(machine_ids)
        self._index()

    def relearn(self, machine: int, rows: IntArray) -> None:
        """Make room to learn a machine, by its row and those of its sensors, from the first step."""
        self.training.open(machine, rows)
        self.reindex()

    def reindex(self) -> None:
        """Look at the tables anew after somebody else wrote to them."""
        self._index()

    def _index(self) -> None:
        self.sensors_of = Groups(self.sensors.machine, self.machines.n)
        self.channels_of = Groups(self.channels.machine, self.machines.n)
        self._turn = _turn_of(self.machines.machine_id)
        self.channel_count = np.bincount(self.channels.machine, minlength=self.machines.n)
        ids = self.sensors.sensor_id
        aside = np.isin(self.machines.machine_id[self.sensors.machine], list(self._set_aside))
        rows = np.where(aside, -1, np.arange(self.sensors.n))
        order = np.argsort(ids, kind="stable")
        self._sorted_ids, self._sorted_rows = ids[order], rows[order]
        top = int(ids.max(initial=-1))
        self._direct: IntArray | None = None
        if 0 <= top < 50_000_000:
            self._direct = np.full(top + 2, -1, dtype=np.int64)
            self._direct[ids] = rows
        self.validity = Validity(self.config, self.sensors, self.alarms)
        self.steps = Steps(self)
        self._evidence = Evidence(self)
        self.assessment.index()

    def _rows_of(self, ids: AnyArray) -> IntArray:
        """Return the sensor rows of ids, -1 where unknown."""
        ids = ids.astype(np.int64)
        if self._direct is not None:
            inside = (ids >= 0) & (ids < len(self._direct))
            return np.where(inside, self._direct[np.where(inside, ids, len(self._direct) - 1)], -1)
        at = np.minimum(np.searchsorted(self._sorted_ids, ids), max(len(self._sorted_ids) - 1, 0))
        return np.where(self._sorted_ids[at] == ids, self._sorted_rows[at], -1)

    # -- the fold ----------------------------------------------------------------------------------------------------

    def fold(self, readings: ReadingArray, received_us: int) -> list[FindingEvent]:
        """Take one committed batch, in any order within; return the changes of findings it caused."""
        if len(readings) == 0 or self.sensors.n == 0:
            return []
        rows = self._rows_of(readings["sensor_id"])
        known = rows >= 0
        if not known.all():
            self.unknown_samples += int(len(rows) - known.sum())
            readings, rows = readings[known], rows[known]
        order, ranges = ticks.cut(rows, readings["ts"])
        rows = rows[order]
        ts = readings["ts"][order].astype(np.int64)
        x = readings["value"][order].astype(np.float64)
        flags = readings["flags"][order]
        bad = (readings["quality"][order] == Quality.BAD) | ~np.isfinite(x)
        live = (flags & Flag.HISTORICAL) == 0
        events: list[FindingEvent] = []
        for start, end in ranges:
            part = slice(start, end)
            events.extend(self._tick(rows[part], ts[part], x[part], bad[part], live[part]))
        self.machines.seen_us[self.sensors.machine[rows[live]]] = received_us
        if len(ts):
            events.extend(self.assessment.batch(rows, ts, flags, live, received_us))
        return self.assessment.out(events, int(ts.max(initial=NEVER)))

    def _tick(self, rows: IntArray, ts: IntArray, x: FloatArray, bad: BoolArray, live: BoolArray) -> list[FindingEvent]:
        s = self.sensors
        sel: Rows = _as_slice(rows)
        fresh = ts > s.last_ts[sel]
        if not fresh.all():
            s.late[rows[~fresh]] += 1
            if not fresh.any():
                return []
            rows, ts, x, bad, live = rows[fresh], ts[fresh], x[fresh], bad[fresh], live[fresh]
            sel = _as_slice(rows)
        events: list[FindingEvent] = []
        due = ts >= s.close_at[sel]
        if due.any():
            first = self._first_of(rows, ts, due)
            if first is not None:
                for part in (first, ~first):
                    events.extend(self._tick(rows[part], ts[part], x[part], bad[part], live[part]))
                return events
            events.extend(self._close_due(s.machine[rows[due]], ts[due]))
        if not live.all():
            self.machines.historical[s.machine[rows[~live]]] = True
        self.validity.tick(sel, rows, ts, x, bad, live)
        if self.validity.changes:
            self.take_sensor_changes()
            events.extend(self.settle(int(ts.max())))
        return events

    def _first_of(self, rows: IntArray, ts: IntArray, due: BoolArray) -> BoolArray | None:
        """Say which samples of a tick belong before a step of their machine closes; None if it can go as a whole."""
        machine = self.sensors.machine[rows]
        closing = np.zeros(self.machines.n, dtype=bool)
        closing[machine[due]] = True
        before = closing[machine] & ~due
        if before.any():
            return ~due
        late = machine[due]
        step = ts[due] // self.machines.step_us[late]
        earliest = np.full(self.machines.n, np.iinfo(np.int64).max)
        np.minimum.at(earliest, late, step)
        after = step > earliest[late]
        if not after.any():
            return None
        first = np.ones(len(rows), dtype=bool)
        first[np.flatnonzero(due)[after]] = False
        return first

    def take_sensor_changes(self) -> None:
        """Queue what the sensor rules raised and cleared for `settle`."""
        for change in self.validity.changes:
            machine = int(self.sensors.machine[change.sensor])
            (self.raised if change.is_raised else self.cleared)[machine].append(change.alarm)
        self.validity.changes.clear()

    # -- steps -------------------------------------------------------------------------------------------------------

    def _close_due(self, machine: IntArray, ts: IntArray) -> list[FindingEvent]:
        m = self.machines
        events: list[FindingEvent] = []
        due = ts >= m.close_at[machine]
        while due.any():
            closing = np.zeros(m.n, dtype=bool)
            closing[machine[due]] = True
            which = np.flatnonzero(closing)
            is_open = m.open_step[which] > NEVER
            if is_open.any():
                events.extend(self.steps.close(which[is_open]))
            newest = np.full(m.n, NEVER)
            np.maximum.at(newest, machine[due], ts[due])
            self._open_next(which, newest[which])
            due = ts >= m.close_at[machine]
        return events

    def _open_next(self, which: IntArray, newest: IntArray) -> None:
        """Move to the next step if samples of it wait, else to the step of the newest sample."""
        m, s = self.machines, self.sensors
        rows, owner = self.sensors_of.rows(which)
        waiting = np.bincount(owner, weights=s.next_count[rows], minlength=len(which)) > 0
        step = m.step_us[which]
        next_step = np.where(waiting & (m.open_step[which] > NEVER), m.open_step[which] + 1, newest // step)
        m.open_step[which] = next_step
        period = np.full(m.n, np.inf)
        np.minimum.at(period, s.machine[rows], np.nan_to_num(s.period_us[rows], nan=0.0))
        least = np.clip(period[which], np.minimum(30e6, step / 2), step / 2)
        # machines of one rhythm would all close their steps in one tick: each waits a time of its own, always the same
        grace = (least + self._turn[which] * (step / 2 - least)).astype(np.int64)
        m.close_at[which] = (next_step + 1) * step + grace
        m.historical[which] = False
        s.starts_at[rows] = (next_step * step)[owner]
        s.ends_at[rows] = ((next_step + 1) * step)[owner]
        s.close_at[rows] = m.close_at[which][owner]
        mode = m.mode[which][owner]
        s.is_off[rows] = mode == Mode.OFF
        s.is_running[rows] = mode == Mode.RUNNING
        s.is_learning[rows] = m.is_learning[which][owner]
        for now, then, fill in _SUMS:
            values, waiting_values = getattr(s, now), getattr(s, then)
            values[rows] = waiting_values[rows]
            waiting_values[rows] = fill

    # -- alarms to findings ------------------------------------------------------------------------------------------

    def settle(self, at_us: int, *, extra: dict[str, Any] | None = None) -> list[FindingEvent]:
        """Turn the alarms raised and cleared since the last call into changes of findings."""
        events: list[FindingEvent] = []
        for machine, every in sorted(self.raised.items()):
            alarms = [a for a in every if not self.alarms.is_muted[a]]
            context = self._evidence.raising(machine, at_us, extra)
            for kind in FindingKind:
                mine = [a for a in alarms if self._evidence.kind_of(*self._alarm_subject[a]) is kind]
                if mine:
                    events.extend(self.incidents.raise_alarms(mine, self._evidence.signs(machine, kind), context, kind))
                    self.assessment.raised_now(machine, at_us, kind)
        for machine, alarms in sorted(self.cleared.items()):
            events.extend(self.incidents.clear_alarms(alarms, self._evidence.context(machine, at_us)))
        self.raised.clear()
        self.cleared.clear()
        return events

    def refresh(self, machine: int, at_us: int) -> list[FindingEvent]:
        """Tell the evidence of an open fault of a machine anew."""
        signs = self._evidence.signs(machine, FindingKind.MACHINE)
        return self.incidents.refresh(signs, self._evidence.raising(machine, at_us))

    def subject_of(self, alarm: int, rule: Rule, row: int) -> None:
        """Note what a new alarm judges: a rule, and the row of its sensor, channel or machine."""
        assert alarm == len(self._alarm_subject)
        self._alarm_subject.append((rule, row))

    def subjects(self) -> list[tuple[Rule, int]]:
        """Return, alarm by alarm, its rule and the row of the sensor, channel or machine that it judges."""
        return list(self._alarm_subject)

    def find_machine(self, machine_id: int) -> MachineMeta | None:
        row = self._machine_of.get(machine_id)
        return None if row is None else self._machine_meta[row]

    def list_machines(self) -> list[MachineMeta]:
        return list(self._machine_meta)

    def model_version(self, machine: int) -> str:
        return f"{self.config.digest()}.{int(self.machines.version[machine])}"

    def sensor_meta(self, row: int) -> SensorMeta:
        return self._sensor_meta[row]

    def machine_meta(self, row: int) -> MachineMeta:
        return self._machine_meta[row]

    def zones(self, row: int) -> ZoneTable:
        return self._zones[row]

    def open_findings(self, machine_id: int) -> list[Finding]:
        """Return the findings of a machine that are raised and not cleared."""
        return self.incidents.open_findings(machine_id)

    # -- the clock ---------------------------------------------------------------------------------------------------

    def advance(self, now_us: int) -> list[FindingEvent]:
        """Let time pass without data: machines that fell silent as a whole are reported, and findings held for others let go.

        `now_us` is compared with the time of receipt, not with event time. Call it only when every committed batch has
        been folded.
        """
        m, s, config = self.machines, self.sensors, self.config
        period = np.full(m.n, np.inf)
        np.minimum.at(period, s.machine, np.nan_to_num(s.period_us, nan=np.inf))
        allowed = np.maximum(config.lost_periods * period, config.lost_s * 1e6)
        watched = (m.seen_us > NEVER) & np.isfinite(period)
        silent = watched & (now_us - m.seen_us > allowed)
        fresh = np.flatnonzero(silent & ~m.is_silent)
        m.is_silent[:] = silent
        events: list[FindingEvent] = []
        for together in self._by_site(fresh, silent, watched):
            rows = self.sensors_of.of(int(together[0]))
            self.validity.fire(Rule.SILENT, rows, np.full(len(rows), now_us))
            self.alarms.since[s.alarm[rows] + int(Rule.SILENT)] = s.last_ts[rows]
            self.take_sensor_changes()
            numbers = [self._machine_meta[int(k)].number for k in together]
            extra = {"scope": "site", "machines": numbers} if len(together) > 1 else {"scope": "machine"}
            events.extend(self.settle(now_us, extra=extra))
        return self.assessment.waited(events, now_us)

    def _by_site(self, fresh: IntArray, silent: BoolArray, watched: BoolArray) -> list[IntArray]:
        """Split machines that fell silent into incidents: most of a site at once is one, its first machine stands for it."""
        if len(fresh) == 0:
            return []
        sites = np.array([meta.site or "" for meta in self._machine_meta])
        incidents: list[IntArray] = []
        for site in np.unique(sites[fresh]):
            here = fresh[sites[fresh] == site]
            others = (sites == site) & watched
            is_site = bool(site) and silent[others].sum() >= max(self.config.lost_together, 0.5 * others.sum())
            if not is_site:
                incidents.extend(here[k : k + 1] for k in range(len(here)))
            elif len(here) >= self.config.lost_together:
                incidents.append(here)
        return incidents

    # -- persistence -------------------------------------------------------------------------------------------------

    def dump(self) -> bytes:
        """Return the whole state as an uncompressed `.npz` that holds no pickled objects."""
        arrays: dict[str, AnyArray] = {}
        for name, table in self._tables():
            arrays.update(table.dump(name))
        arrays.update(self.training.dump())
        arrays.update(self.pool.dump())
        assessed, assessment = self.assessment.dump()
        arrays.update(assessed)
        body: dict[str, Any] = {
            "state_version": STATE_VERSION,
            "config": self.config.digest(),
            "incidents": self.incidents.dump(),
            "assessment": assessment,
            "alarm_subject": [[int(rule), subject] for rule, subject in self._alarm_subject],
            "unknown_samples": self.unknown_samples,
        }
        arrays["json"] = np.frombuffer(json.dumps(body).encode(), dtype=np.uint8)
        out = io.BytesIO()
        np.savez(out, allow_pickle=False, **arrays)
        return out.getvalue()

    @classmethod
    def load(
        cls,
        state: bytes,
        *,
        machines: Iterable[MachineMeta],
        sensors: Iterable[SensorMeta],
        config: EngineConfig | None = None,
        limits: Limits | None = None,
    ) -> "Engine":
        """Return an engine that goes on where `dump` left off. Machines and sensors unknown to the state start anew.

        Raises:
            ForeignState: the bytes are no state of this program, or hold pickled objects.
        """
        engine = cls(config, limits=limits)
        try:
            with np.load(io.BytesIO(state), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            body = json.loads(arrays["json"].tobytes())
        except (ValueError, KeyError, OSError, EOFError) as error:
            raise ForeignState(what=f"it cannot be read ({error})") from error
        if body["state_version"] != STATE_VERSION:
            raise ForeignState(what=f"it has version {body['state_version']}, this program {STATE_VERSION}")
        known_machines = {int(meta.machine_id): meta for meta in machines}
        known_sensors = {int(meta.sensor_id): meta for meta in sensors}
        for name, table in engine._tables():
            table.load(name, arrays)
        engine.training.load(arrays)
        engine.pool.load(arrays)
        engine.incidents.load(body["incidents"])
        engine.assessment.load(arrays, body.get("assessment", {}))
        engine.unknown_samples = body["unknown_samples"]
        engine._restore(known_machines, known_sensors, body)
        engine.register(known_machines.values(), known_sensors.values())
        if body["config"] != engine.config.digest():
            engine.steps.set_alarm_levels()
        return engine

    def _restore(self, machines: dict[int, MachineMeta], sensors: dict[int, SensorMeta], body: dict[str, Any]) -> None:
        for row, machine_id in enumerate(self.machines.machine_id.tolist()):
            meta = machines.get(machine_id) or MachineMeta(MachineId(machine_id), number=str(machine_id))
            self._machine_of[machine_id] = row
            self._machine_meta.append(meta)
            self._zones.append(self.limits.zones(meta))
        for row, sensor_id in enumerate(self.sensors.sensor_id.tolist()):
            machine_id = int(self.machines.machine_id[self.sensors.machine[row]])
            kind = KINDS[int(self.sensors.kind[row])]
            self._sensor_of[sensor_id] = row
            self._sensor_meta.append(
                sensors.get(sensor_id) or SensorMeta(SensorId(sensor_id), MachineId(machine_id), str(sensor_id), kind)
            )
        self._alarm_subject = [(Rule(rule), subject) for rule, subject in body["alarm_subject"]]

    def _tables(self) -> list[tuple[str, Machines | Sensors | Channels | Alarms]]:
        return [
            ("machine", self.machines),
            ("sensor", self.sensors),
            ("channel", self.channels),
            ("alarm", self.alarms),
        ]


__all__ = ["READING_DTYPE", "Engine", "Tier"]
