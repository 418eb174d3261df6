"""Publish a recording as readings, at a speed factor, and account for every acknowledgement."""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from fettle import clock
from fettle.errors import FettleError
from fettle.wire import encode_reading, reading_topic
from simulators.broker import BrokerAddress, BrokerGone, Message, PublishRefused
from simulators.clients import choose_client, describe, open_publisher
from simulators.recording import Recording, check_sensor_names


class ReplayBroken(FettleError):
    """The broker went away ({why}) after {acknowledged} of {total} readings were acknowledged: all of {file} up to line {line} has arrived. Go on with --from-line {next_line}."""


class BeyondTheEnd(FettleError):
    """{file} has no row on line {from_line} or after it: its last row is on line {last}. Give --from-line a smaller number."""


@dataclass(frozen=True)
class Replayed:
    """What a replay did; `sent` and `acknowledged` are equal unless it was stopped."""

    total: int
    sent: int
    acknowledged: int
    first_us: int
    last_us: int
    elapsed_s: float
    stopped: bool
    version: int
    client: str


def publish_recording(
    recording: Recording,
    *,
    address: BrokerAddress,
    tenant: str,
    site: str,
    machine: str,
    site_column: str | None = None,
    machine_column: str | None = None,
    units: Mapping[str, str],
    names: Mapping[str, str],
    speed: float,
    shift_us: int = 0,
    from_line: int = 0,
    client_id: str = "fettle-replay",
    stop: threading.Event | None = None,
    on_progress: Callable[[int, int, int], None] | None = None,
    client: str = "auto",
    on_connected: Callable[[str], None] | None = None,
) -> Replayed:
    """Publish every value of the recording in the order of the file and wait for every acknowledgement.

    Args:
        recording: what to publish.
        address: the broker.
        tenant: first level of the topics after the root.
        site: second level.
        machine: third level.
        site_column: label column that says the site of each row instead.
        machine_column: label column that says the machine of each row instead.
        units: unit by column; a column without one is published without.
        names: sensor by column, where it is not the column's name.
        speed: recorded seconds per second; 0 is as fast as the broker takes them.
        shift_us: added to every time stamp.
        from_line: skip the lines of the file before it.
        client_id: at the broker.
        stop: ends the replay when set; what is on the way is still waited for.
        on_progress: told (sent, acknowledged, total).
        client: "paho", "batch", or "auto": paho where it keeps up with the readings a second.
        on_connected: told once which client that is, over which version of MQTT, and why.

    Raises:
        ReplayBroken: the connection broke; says how far it got.
        BadTopicLevel, RecordingUnreadable: a name cannot be part of a topic.
        ClientUnknown: not one of the three.
        BeyondTheEnd: the file has no row at `from_line` or after it.
    """
    stop = stop or threading.Event()
    if recording.lines.size and from_line > recording.lines.max():
        raise BeyondTheEnd(file=recording.file, from_line=from_line, last=int(recording.lines.max()))
    sensors = {column: names.get(column, column) for column in recording.columns}
    check_sensor_names(recording.file, sensors)
    chosen = recording.lines >= from_line
    lines, times = recording.lines[chosen].tolist(), (recording.times[chosen] + shift_us).tolist()
    columns = [(sensors[c], units.get(c), v[chosen].tolist()) for c, v in recording.columns.items()]
    rows = np.flatnonzero(chosen).tolist()
    sites = [recording.labels[site_column][i] for i in rows] if site_column else [site] * len(rows)
    machines = [recording.labels[machine_column][i] for i in rows] if machine_column else [machine] * len(rows)
    topics = {
        (a, b): [reading_topic(tenant=tenant, site=a, machine=b, sensor=sensor) for sensor, _, _ in columns]
        for a, b in dict.fromkeys(zip(sites, machines, strict=True))
    }
    total = int(sum(np.isfinite(v[chosen]).sum() for v in recording.columns.values()))
    span_s = (times[-1] - times[0]) / 1e6 / speed if speed and times else 0.0
    choice = choose_client(client, rate=total / max(span_s, 1.0) if speed else math.inf)
    began = clock.monotonic_s()
    told = began
    line_of: list[int] = []  # line of the file of each message, in the order they were sent
    with open_publisher(choice, address, client_id=client_id) as publisher:
        if on_connected:
            on_connected(describe(publisher, choice))

        def tell(*, force: bool = False) -> None:
            nonlocal told
            if on_progress and (force or clock.monotonic_s() - told > 0.1):
                told = clock.monotonic_s()
                on_progress(publisher.sent, publisher.acknowledged, total)

        try:
            start_us = times[0] if times else 0
            for i, (line, ts_us) in enumerate(zip(lines, times, strict=True)):
                if stop.is_set():
                    break
                while speed and not stop.is_set():
                    wait_s = (ts_us - start_us) / 1e6 / speed - (clock.monotonic_s() - began)
                    if wait_s <= 0:
                        break
                    publisher.pump(min(wait_s, 0.1))
                    tell()
                for topic, (_, unit, values) in zip(topics[sites[i], machines[i]], columns, strict=True):
                    value = values[i]
                    if value == value:  # not NaN  # noqa: PLR0124
                        publisher.publish(Message(topic, encode_reading(ts_us=ts_us, value=value, unit=unit)))
                        line_of.append(line)
                tell()
            publisher.flush()
        except (BrokerGone, PublishRefused) as gone:
            # acknowledgements come in order, so the first ones are complete
            arrived = publisher.sent - len(publisher.unacknowledged())
            complete = line_of[arrived - 1] if arrived else 0
            if arrived < len(line_of) and complete == line_of[arrived]:
                complete = next((n for n in reversed(line_of[:arrived]) if n != complete), 0)
            following = next((n for n in lines if n > complete), complete)
            raise ReplayBroken(
                why=str(gone.data.get("why", gone)),
                acknowledged=publisher.acknowledged,
                total=total,
                file=recording.file,
                line=complete,
                next_line=following,
            ) from gone
        tell(force=True)
        return Replayed(
            total=total,
            sent=publisher.sent,
            acknowledged=publisher.acknowledged,
            first_us=times[0] if times else 0,
            last_us=times[-1] if times else 0,
            elapsed_s=clock.monotonic_s() - began,
            stopped=stop.is_set(),
            version=publisher.version,
            client=describe(publisher, choice),
        )
