"""Payload formats a device may send, encoded from their specifications, apart from what decodes them.

A format turns the signals of one machine at one instant into messages. Formats that open a session (Sparkplug) say so with
`opening` and `closing`; formats that collect several instants hand out the rest with `rest`.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Protocol

import orjson

from fettle.wire import encode_reading, encode_signals, machine_topic, reading_topic
from simulators.broker import Message
from simulators.machine import Machine
from simulators.signals import SIGNAL_UNITS
from simulators.toml_table import EPOCH

Values = Mapping[str, float]
"""Value by signal."""


class PayloadFormat(Protocol):
    """How one kind of device talks."""

    will: Message | None
    commands: str | None
    """Topic filter of commands to the device, where it takes any."""

    def opening(self, now_us: int) -> Iterable[Message]:
        """Return what is sent right after connecting."""

    def encode(self, machine: Machine, ts_us: int, values: Values) -> Iterable[Message]:
        """Return the messages of one machine at one instant."""

    def rest(self) -> Iterable[Message]:
        """Return what has been collected and not sent."""

    def closing(self, now_us: int) -> Iterable[Message]:
        """Return what is sent before disconnecting."""

    def command(self, topic: str, payload: bytes, now_us: int) -> Iterable[Message]:
        """Return the answer to a command."""


class _Plain:
    """A format without session and memory."""

    will: Message | None = None
    commands: str | None = None

    def opening(self, now_us: int) -> Iterable[Message]:  # noqa: ARG002 -- part of the protocol
        return ()

    def rest(self) -> Iterable[Message]:
        return ()

    def closing(self, now_us: int) -> Iterable[Message]:  # noqa: ARG002
        return ()

    def command(self, topic: str, payload: bytes, now_us: int) -> Iterable[Message]:  # noqa: ARG002
        return ()


class FettleJson(_Plain):
    """One message per reading: fettle/{tenant}/{site}/{machine}/{sensor}, {"ts", "value", "unit"}."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant
        self._topics: dict[tuple[int, str], str] = {}

    def encode(self, machine: Machine, ts_us: int, values: Values) -> Iterator[Message]:
        for signal, value in values.items():
            topic = self._topics.get((machine.key, signal))
            if topic is None:
                topic = reading_topic(tenant=self._tenant, site=machine.site, machine=machine.number, sensor=signal)
                self._topics[machine.key, signal] = topic
            yield Message(topic, encode_reading(ts_us=ts_us, value=value, unit=SIGNAL_UNITS[signal]))


class FettleObject(_Plain):
    """One message per machine and instant: fettle/{tenant}/{site}/{machine}, {"ts", signal: value, "units"}."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant

    def encode(self, machine: Machine, ts_us: int, values: Values) -> Iterator[Message]:
        topic = machine_topic(tenant=self._tenant, site=machine.site, machine=machine.number)
        yield Message(topic, encode_signals(ts_us=ts_us, values=values, units={s: SIGNAL_UNITS[s] for s in values}))


class FettleArray(_Plain):
    """Several instants in one message: an array of objects on the machine's topic."""

    def __init__(self, tenant: str, *, instants: int = 10) -> None:
        self._tenant = tenant
        self._instants = instants
        self._waiting: dict[int, tuple[Machine, list[dict[str, object]]]] = {}

    def encode(self, machine: Machine, ts_us: int, values: Values) -> Iterator[Message]:
        _, rows = self._waiting.setdefault(machine.key, (machine, []))
        rows.append({"ts": ts_us / 1000 if ts_us % 1000 else ts_us // 1000, **values})
        if len(rows) >= self._instants:
            yield self._message(machine.key)

    def _message(self, key: int) -> Message:
        machine, rows = self._waiting.pop(key)
        topic = machine_topic(tenant=self._tenant, site=machine.site, machine=machine.number)
        return Message(topic, orjson.dumps(rows))

    def rest(self) -> Iterator[Message]:
        for key in list(self._waiting):
            yield self._message(key)


class UnsJson(_Plain):
    """Unified namespace of ISA-95 levels, UMH's contract: umh/v1/{enterprise}/{site}/{area}/{machine}/_historian/{tag}."""

    def __init__(self, tenant: str) -> None:
        self._tenant = tenant

    def encode(self, machine: Machine, ts_us: int, values: Values) -> Iterator[Message]:
        path = f"umh/v1/{self._tenant}/{machine.site}/{machine.line}/{machine.number}/_historian"
        for signal, value in values.items():
            yield Message(f"{path}/{signal}", orjson.dumps({"timestamp_ms": ts_us // 1000, "value": value}))


class SenMl(_Plain):
    """SenML of RFC 8428: one pack per machine and instant; the topic says which machine, the first record the time."""

    def __init__(self, *, cbor: bool = False) -> None:
        self._cbor = cbor

    def encode(self, machine: Machine, ts_us: int, values: Values) -> Iterator[Message]:
        records: list[dict[str | int, object]] = []
        label: Mapping[str, str | int] = _SENML_CBOR if self._cbor else _SENML_JSON
        for signal, value in values.items():
            record: dict[str | int, object] = {}
            if not records:
                record[label["bt"]] = ts_us / 1e6
            record[label["n"]] = signal
            record[label["u"]] = "Cel" if SIGNAL_UNITS[signal] == "°C" else SIGNAL_UNITS[signal]
            record[label["v"]] = value
            records.append(record)
        topic = f"senml/{machine.site}/{machine.number}"
        if self._cbor:
            import cbor2

            yield Message(topic, cbor2.dumps(records), content_type="application/senml+cbor")
        else:
            yield Message(topic, orjson.dumps(records), content_type="application/senml+json")


_SENML_JSON = {"bt": "bt", "n": "n", "u": "u", "v": "v"}
_SENML_CBOR = {"bt": -3, "n": 0, "u": 1, "v": 2}


class LineProtocol(_Plain):
    """Influx line protocol: line/{site}, the machine as measurement, one field per signal, nanoseconds."""

    def encode(self, machine: Machine, ts_us: int, values: Values) -> Iterator[Message]:
        fields = ",".join(f"{_escape(s, '=')}={v!r}" for s, v in values.items())
        yield Message(f"line/{machine.site}", f"{_escape(machine.number)} {fields} {ts_us * 1000}".encode())


def _escape(text: str, more: str = "") -> str:
    for sign in ", " + more:
        text = text.replace(sign, "\\" + sign)
    return text


class OpcUaJson(_Plain):
    """OPC UA PubSub, JSON mapping of version 1.05: one ua-data message per machine and instant, fields as DataValues."""

    def __init__(self) -> None:
        self._sequence: dict[int, int] = {}

    def encode(self, machine: Machine, ts_us: int, values: Values) -> Iterator[Message]:
        sequence = self._sequence.get(machine.key, 0) + 1
        self._sequence[machine.key] = sequence
        at = (EPOCH + timedelta(microseconds=ts_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")
        body = {
            "MessageId": f"{machine.site}-{machine.number}-{sequence}",
            "MessageType": "ua-data",
            "PublisherId": machine.site,
            "Messages": [
                {
                    "DataSetWriterId": 1,
                    "SequenceNumber": sequence,
                    "Timestamp": at,
                    "Payload": {s: {"UaType": 11, "Value": v, "SourceTimestamp": at} for s, v in values.items()},
                }
            ],
        }
        yield Message(f"opcua/json/data/{machine.site}/{machine.line}/{machine.number}", orjson.dumps(body))
