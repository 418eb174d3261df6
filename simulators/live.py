"""Drive a fleet in real time, or faster, and publish what its devices would send."""

import math
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import orjson

from fettle import clock
from fettle.errors import FettleError
from fettle.wire import reading_topic
from simulators.broker import BrokerAddress, BrokerGone, BrokerRefused, BrokerUnreachable, Message, Publisher
from simulators.clients import ClientChoice, choose_client, describe, open_publisher
from simulators.delivery import DeliveryArray, deliveries
from simulators.fleet import Fleet
from simulators.formats import (
    FettleArray,
    FettleJson,
    FettleObject,
    LineProtocol,
    OpcUaJson,
    PayloadFormat,
    SenMl,
    UnsJson,
)
from simulators.sparkplug import SparkplugB
from simulators.waveform import Waveform

FORMATS = ("fettle", "object", "array", "uns", "sparkplug", "senml", "senml-cbor", "line", "opcua")
_CHUNK_S = 1.0
_BEHIND_S = 2.0
_STATUS_S = 1.0


class FormatUnknown(FettleError):
    """There is no payload format {name!r}; choose one of {names}."""


@dataclass(frozen=True, kw_only=True)
class Bursts:
    """Raw waveforms beside the readings: every machine sends one every so often, each at its own time."""

    every_s: float = 600.0
    duration_s: float = 1.0
    fs_hz: float = 25_600.0


@dataclass(frozen=True, slots=True)
class _Due:
    """What a machine sends at one instant: the values of its signals, or a message made already."""

    due_us: int
    machine: int
    ts_us: int
    values: dict[str, float]
    message: Message | None = None


@dataclass
class LiveStatus:
    """Where a live run stands; `lag_s` is how late the last message left, in seconds of the wall clock.

    `client` says who publishes, over which version of MQTT, and why.
    """

    client: str = ""
    at_us: int = 0
    messages: int = 0
    acknowledged: int = 0
    readings: int = 0
    lag_s: float = 0.0
    worst_lag_s: float = 0.0
    elapsed_s: float = 0.0
    reconnects: int = 0
    rate: float = 0.0
    version: int = 0
    warnings: list[str] = field(default_factory=list)


def make_format(name: str, fleet: Fleet, *, tenant: str, born_us: int) -> PayloadFormat:
    """Return the payload format of a name.

    Raises:
        FormatUnknown: not one of `FORMATS`.
    """
    match name:
        case "fettle":
            return FettleJson(tenant)
        case "object":
            return FettleObject(tenant)
        case "array":
            return FettleArray(tenant)
        case "uns":
            return UnsJson(tenant)
        case "sparkplug":
            return SparkplugB(
                fleet.machines, fleet.scenario.signals, group=tenant, node=f"sim-{fleet.scenario.name}", born_us=born_us
            )
        case "senml" | "senml-cbor":
            return SenMl(cbor=name == "senml-cbor")
        case "line":
            return LineProtocol()
        case "opcua":
            return OpcUaJson()
        case _:
            raise FormatUnknown(name=name, names=", ".join(FORMATS))


def machines_for_rate(rate: float, *, period_us: int, signals: int, payload_format: str) -> int:
    """Return how many machines send about `rate` messages a second."""
    return max(math.ceil(rate * period_us / 1e6 / _per_instant(payload_format, signals)), 1)


def expected_rate(fleet: Fleet, *, payload_format: str, speed: float) -> float:
    """Return how many messages a second a fleet sends, beside waveforms; infinite at speed 0."""
    a_second = len(fleet.machines) * _per_instant(payload_format, len(fleet.scenario.signals)) / fleet.period_us * 1e6
    return a_second * speed if speed else math.inf


def _per_instant(payload_format: str, signals: int) -> float:
    return signals if payload_format in {"fettle", "uns"} else 0.1 if payload_format == "array" else 1


def prepare(fleet: Fleet, at_us: int) -> None:
    """Plan the day of every machine ahead, so that a run that begins now does not begin late."""
    deliveries(fleet, at_us, at_us + 1_000_000)


class _Schedule:
    """Maps the wall clock to the time of the plant; never runs ahead of the present unless told so."""

    def __init__(self, *, start_us: int, speed: float, may_lead: bool) -> None:
        self._may_lead = may_lead
        self._speed = speed
        self._from_us = start_us
        self._from_s = clock.monotonic_s()

    def speed_at(self) -> float:
        return self._speed

    def now_us(self) -> int:
        """Return the time of the plant; at the present it goes on at the speed of the wall clock."""
        at = self._from_us + round((clock.monotonic_s() - self._from_s) * self._speed * 1e6)
        if self._speed > 1 and not self._may_lead:
            present = clock.now_us()
            if at >= present:
                self._from_us, self._from_s, self._speed = present, clock.monotonic_s(), 1.0
                return present
        return at


def publish_live(
    fleet: Fleet,
    *,
    address: BrokerAddress,
    start_us: int,
    end_us: int | None = None,
    speed: float = 1.0,
    payload_format: str = "fettle",
    tenant: str | None = None,
    client_id: str = "fettle-simulate",
    stop: threading.Event | None = None,
    on_status: Callable[[LiveStatus], None] | None = None,
    may_lead: bool = False,
    bursts: Bursts | None = None,
    client: ClientChoice | None = None,
    on_connected: Callable[[str], None] | None = None,
) -> LiveStatus:
    """Publish the readings of a fleet from `start_us` on, each when its time comes, until `end_us` or `stop`.

    A connection that breaks is made again, and what was not acknowledged is sent once more: at least once, as devices do.

    Args:
        fleet: whose machines publish.
        address: the broker.
        start_us: instant of the plant to begin at.
        end_us: and to end at; None is until `stop`.
        speed: plant seconds per second; 0 is as fast as the broker takes them. Above 1 the plant slows down to the wall
            clock when it reaches the present, so that no time stamp lies in the future, unless `may_lead`.
        payload_format: one of `FORMATS`.
        tenant: instead of the scenario's.
        client_id: at the broker.
        stop: ends the run in good order when set.
        on_status: told about once a second, from the thread that called.
        may_lead: time stamps may run ahead of the clock.
        bursts: send raw waveforms as well, as JSON {"t0", "fs", "values"} on fettle/{tenant}/{site}/{machine}/waveform.
        client: who publishes; chosen by `expected_rate` where None.
        on_connected: told once which client that is, over which version of MQTT, and why.

    Raises:
        BrokerUnreachable, BrokerRefused: at the start.
        FormatUnknown: see `make_format`.
    """
    stop = stop or threading.Event()
    run = _LiveRun(
        fleet,
        address=address,
        form=make_format(payload_format, fleet, tenant=tenant or fleet.scenario.tenant, born_us=start_us),
        client_id=client_id,
        stop=stop,
        on_status=on_status,
        tenant=tenant or fleet.scenario.tenant,
        bursts=bursts,
        client=client or choose_client(rate=expected_rate(fleet, payload_format=payload_format, speed=speed)),
        on_connected=on_connected,
    )
    return run.run(start_us=start_us, end_us=end_us, speed=speed, may_lead=may_lead)


class _LiveRun:
    def __init__(
        self,
        fleet: Fleet,
        *,
        address: BrokerAddress,
        form: PayloadFormat,
        client_id: str,
        stop: threading.Event,
        on_status: Callable[[LiveStatus], None] | None,
        tenant: str,
        bursts: Bursts | None,
        client: ClientChoice,
        on_connected: Callable[[str], None] | None,
    ) -> None:
        self._fleet = fleet
        self._tenant = tenant
        self._bursts = bursts
        self._address = address
        self._form = form
        self._client_id = client_id
        self._client = client
        self._on_connected = on_connected
        self._stop = stop
        self._on_status = on_status
        self._told_at = self._began_at = clock.monotonic_s()
        self._counted = 0
        self._acknowledged_before = 0
        self._at_us = 0
        self._publisher: Publisher | None = None
        self._commands: list[tuple[str, bytes]] = []
        self.status = LiveStatus()

    def run(self, *, start_us: int, end_us: int | None, speed: float, may_lead: bool) -> LiveStatus:
        self._at_us = start_us
        self._publisher = self._connect()
        status = self.status
        status.version = self._publisher.version
        status.client = describe(self._publisher, self._client)
        if self._on_connected:
            self._on_connected(status.client)
        if status.version == 4 and self._address.version == "auto":
            status.warnings.append("the broker does not speak MQTT 5; publishing with 3.1.1")
        # what was agreed on stays: a broker that is half up must not talk us down
        self._address = replace(self._address, version="5" if status.version == 5 else "3.1.1")
        self._send_all(self._form.opening(start_us))
        chunk_us = max(round(_CHUNK_S * (speed or 600.0) * 1e6), self._fleet.period_us if speed == 0 else 1)
        schedule = _Schedule(start_us=start_us, speed=speed, may_lead=may_lead) if speed else None
        with ThreadPoolExecutor(1, thread_name_prefix="generate") as ahead:
            at = start_us
            coming = ahead.submit(self._chunk, at, _earlier(at + chunk_us, end_us))
            while not self._stop.is_set() and (end_us is None or at < end_us):
                rows, until = coming.result(), _earlier(at + chunk_us, end_us)
                following = _earlier(until + chunk_us, end_us)
                coming = ahead.submit(self._chunk, until, following)
                self._play(rows, until, schedule)
                at = until
        self._send_all(self._form.rest())
        self._send_all(self._form.closing(self._at_us))
        self._drain()
        self._tell(force=True)
        if self._publisher is not None:
            self._publisher.close()
        return status

    def _chunk(self, start_us: int, end_us: int) -> list[_Due]:
        rows = list(instants(self._fleet, deliveries(self._fleet, start_us, end_us)))
        if self._bursts is not None:
            rows.extend(self._burst_rows(self._bursts, start_us, end_us))
            rows.sort(key=lambda row: row.due_us)
        return rows

    def _burst_rows(self, bursts: Bursts, start_us: int, end_us: int) -> Iterator[_Due]:
        every_us = max(round(bursts.every_s * 1e6), 1000)
        for i, machine in enumerate(self._fleet.machines):
            phase = machine.key % every_us // 1000 * 1000
            for k in range(-((phase - start_us) // every_us), -((phase - end_us) // every_us)):
                t0_us = k * every_us + phase
                wave = self._fleet.waveform(machine, t0_us, fs_hz=bursts.fs_hz, duration_s=bursts.duration_s)
                due_us = t0_us + round(bursts.duration_s * 1e6)  # it is sent when it has been recorded
                yield _Due(due_us, i, t0_us, {}, burst_message(wave, tenant=self._tenant))

    def _play(self, rows: list[_Due], until_us: int, schedule: _Schedule | None) -> None:
        machines, form, status = self._fleet.machines, self._form, self.status
        done, total = 0, len(rows)
        while done < total:
            if self._stop.is_set():
                return
            now_us = until_us if schedule is None else schedule.now_us()
            before = done
            while done < total and rows[done].due_us <= now_us and done - before < 500:
                due = rows[done]
                self._at_us = due.due_us
                status.readings += len(due.values)
                if due.message is not None:
                    self._send_all((due.message,))
                if due.values:
                    self._send_all(form.encode(machines[due.machine], due.ts_us, due.values))
                done += 1
            if schedule is not None and done > before:
                late_us = schedule.now_us() - rows[before].due_us
                status.lag_s = max(late_us / 1e6 / max(schedule.speed_at(), 1e-9), 0.0)
                status.worst_lag_s = max(status.worst_lag_s, status.lag_s)
            if done < total:
                due_in_s = 0.0
                if schedule is not None:
                    due_in_s = (rows[done].due_us - schedule.now_us()) / 1e6 / max(schedule.speed_at(), 1e-9)
                self._idle(min(max(due_in_s, 0.0), 0.1))
            self._tell()
        while schedule is not None and not self._stop.is_set():
            left_s = (until_us - schedule.now_us()) / 1e6 / max(schedule.speed_at(), 1e-9)
            if left_s <= 0:
                break
            self._idle(min(left_s, 0.1))
            self._tell()

    # -- the connection, which may come and go

    def _connect(self) -> Publisher:
        publisher = open_publisher(
            self._client, self._address, client_id=self._client_id, will=self._form.will, on_message=self._commanded
        )
        if self._form.commands:
            publisher.subscribe(self._form.commands)
        return publisher

    def _commanded(self, topic: str, payload: bytes) -> None:
        self._commands.append((topic, payload))

    def _send_all(self, messages: Iterable[Message]) -> None:
        for message in messages:
            while self._publisher is not None:
                try:
                    self._publisher.publish(message)
                except BrokerGone as gone:
                    self._reconnect(gone)
                    continue
                self.status.messages += 1
                break

    def _idle(self, wait_s: float) -> None:
        if self._publisher is None:
            return
        try:
            self._publisher.pump(wait_s)
        except BrokerGone as gone:
            self._reconnect(gone)
        while self._commands:
            topic, payload = self._commands.pop(0)
            self._send_all(self._form.command(topic, payload, self._at_us))

    def _drain(self) -> None:
        if self._publisher is None:
            return
        try:
            self._publisher.flush()
        except BrokerGone as gone:
            self.status.warnings.append(str(gone))

    def _reconnect(self, gone: BrokerGone) -> None:
        """Come back with growing pauses, open again, and send what was on the way once more; give up only on `stop`."""
        assert self._publisher is not None
        lost = self._publisher.unacknowledged()
        self._acknowledged_before += self._publisher.acknowledged
        self._publisher.close()
        self._publisher = None
        self.status.warnings.append(str(gone))
        pause_s = 0.2
        while not self._stop.wait(pause_s):
            pause_s = min(pause_s * 2, 10.0)
            self._tell()
            try:
                publisher = self._connect()
                for message in (*self._form.opening(self._at_us), *lost):
                    publisher.publish(message)
            except (BrokerUnreachable, BrokerGone):
                continue
            except BrokerRefused as refused:  # it may be half up, or let us in again later
                if str(refused) not in self.status.warnings:
                    self.status.warnings.append(str(refused))
                continue
            self.status.reconnects += 1
            self._publisher = publisher
            return

    def _tell(self, *, force: bool = False) -> None:
        now = clock.monotonic_s()
        if not force and now - self._told_at < _STATUS_S:
            return
        status = self.status
        status.rate = (status.messages - self._counted) / max(now - self._told_at, 1e-9)
        self._counted, self._told_at = status.messages, now
        status.elapsed_s = now - self._began_at
        status.at_us = self._at_us
        if self._publisher is not None:
            status.acknowledged = self._acknowledged_before + self._publisher.acknowledged
        if status.lag_s > _BEHIND_S and not any(w.startswith("falling behind") for w in status.warnings):
            status.warnings.append(
                f"falling behind by {status.lag_s:.1f} s at {status.rate:,.0f} messages/s: this machine or the broker cannot keep up"
                + ("; the batch publisher needs less of this machine" if self._client.name == "paho" else "")
            )
        if self._on_status:
            self._on_status(status)


def instants(fleet: Fleet, rows: DeliveryArray) -> Iterator[_Due]:
    """Yield the readings that a device sends together, in the order of delivery."""
    if not rows.size:
        return
    names = fleet.scenario.signals
    new = (np.diff(rows["deliver_us"]) != 0) | (np.diff(rows["machine"]) != 0) | (np.diff(rows["ts"]) != 0)
    edges = [0, *(np.flatnonzero(new) + 1).tolist(), rows.size]
    deliver, machine, ts, signal, value = (
        rows[name].tolist() for name in ("deliver_us", "machine", "ts", "signal", "value")
    )
    for a, b in pairwise(edges):
        yield _Due(deliver[a], machine[a], ts[a], {names[signal[i]]: value[i] for i in range(a, b)})


def burst_message(wave: Waveform, *, tenant: str) -> Message:
    """Return a waveform as one JSON message."""
    m = wave.machine
    topic = reading_topic(tenant=tenant, site=m.site, machine=m.number, sensor="waveform")
    values = np.round(wave.values, 5).tolist()
    return Message(topic, orjson.dumps({"t0": wave.t0_us / 1000, "fs": wave.fs_hz, "unit": "g", "values": values}))


def _earlier(at_us: int, end_us: int | None) -> int:
    return at_us if end_us is None else min(at_us, end_us)
