"""Sparkplug B 3.0 as an edge node sends it: births with names, aliases and types, then data by alias.

Field numbers of the payload are those of the specification's chapter 6; the encoder writes them by hand, which keeps it
independent of the generated code that decodes.
"""

import struct
from collections.abc import Iterable, Iterator

from simulators.broker import Message
from simulators.formats import Values
from simulators.machine import Machine
from simulators.signals import SIGNAL_UNITS

_DOUBLE, _INT64, _BOOLEAN, _STRING = 10, 4, 11, 12
_VARINT, _FIXED64, _BYTES = 0, 1, 2


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(value)) + value


def encode_metric(
    *,
    ts_ms: int,
    value: float | bool | str,
    name: str = "",
    alias: int | None = None,
    born: bool = False,
    unit: str = "",
) -> bytes:
    """Return one metric; a birth carries its name, datatype and engineering unit, data the alias alone."""
    out = b""
    if name:
        out += _bytes(1, name.encode())
    if alias is not None:
        out += _number(2, alias)
    out += _number(3, ts_ms)
    datatype = (
        _BOOLEAN
        if isinstance(value, bool)
        else _STRING
        if isinstance(value, str)
        else _INT64
        if isinstance(value, int)
        else _DOUBLE
    )
    if born:
        out += _number(4, datatype)
    if unit:
        # PropertySet: keys=1, values=2; PropertyValue: type=1, string_value=8
        out += _bytes(9, _bytes(1, b"engUnit") + _bytes(2, _number(1, _STRING) + _bytes(8, unit.encode())))
    if isinstance(value, bool):
        return out + _number(14, int(value))
    if isinstance(value, str):
        return out + _bytes(15, value.encode())
    if isinstance(value, int):
        return out + _number(11, value & 0xFFFFFFFFFFFFFFFF)
    return out + _varint(13 << 3 | _FIXED64) + struct.pack("<d", value)


def encode_payload(*, ts_ms: int, metrics: Iterable[bytes], seq: int | None) -> bytes:
    """Return a payload: time stamp, metrics, sequence number (none in a death)."""
    out = _number(1, ts_ms) + b"".join(_bytes(2, m) for m in metrics)
    return out if seq is None else out + _number(3, seq)


class SparkplugB:
    """One edge node for the whole fleet, one device per machine; QoS 0 and a will, as the specification wants it."""

    def __init__(
        self, machines: tuple[Machine, ...], signals: tuple[str, ...], *, group: str, node: str, born_us: int
    ) -> None:
        self._machines = machines
        self._signals = signals
        self._group = group
        self._node = node
        self._seq = 0
        self._last: dict[int, dict[str, float]] = {}
        self._bd_seq = born_us // 1000 % 256
        self._aliases = {(m.key, s): i for i, (m, s) in enumerate(((m, s) for m in machines for s in signals), 1)}
        self.will: Message | None = self._death(born_us)
        self.commands: str | None = self._topic("NCMD")

    def _topic(self, kind: str, device: str = "") -> str:
        return f"spBv1.0/{self._group}/{kind}/{self._node}" + (f"/{device}" if device else "")

    def _device(self, m: Machine) -> str:
        return f"{m.site}:{m.number}"

    def _next(self) -> int:
        seq, self._seq = self._seq, (self._seq + 1) % 256
        return seq

    def _death(self, now_us: int) -> Message:
        metric = encode_metric(ts_ms=now_us // 1000, value=self._bd_seq, name="bdSeq", born=True)
        return Message(self._topic("NDEATH"), encode_payload(ts_ms=now_us // 1000, metrics=(metric,), seq=None), qos=1)

    def opening(self, now_us: int) -> Iterator[Message]:
        """Yield the birth of the node and of each device, with the last known values."""
        ts_ms = now_us // 1000
        self._seq = 0
        node = (
            encode_metric(ts_ms=ts_ms, value=self._bd_seq, name="bdSeq", born=True),
            encode_metric(ts_ms=ts_ms, value=False, name="Node Control/Rebirth", born=True),
        )
        yield Message(self._topic("NBIRTH"), encode_payload(ts_ms=ts_ms, metrics=node, seq=self._next()), qos=0)
        for m in self._machines:
            known = self._last.get(m.key, {})
            metrics = [
                encode_metric(
                    ts_ms=ts_ms,
                    value=known.get(s, 0.0),
                    name=s,
                    alias=self._aliases[m.key, s],
                    born=True,
                    unit=SIGNAL_UNITS[s],
                )
                if s in known
                else self._unknown(ts_ms, m, s)
                for s in self._signals
            ]
            yield Message(
                self._topic("DBIRTH", self._device(m)),
                encode_payload(ts_ms=ts_ms, metrics=metrics, seq=self._next()),
                qos=0,
            )

    def _unknown(self, ts_ms: int, m: Machine, signal: str) -> bytes:
        """Return a birth metric without a value (is_null)."""
        unit = _bytes(
            9, _bytes(1, b"engUnit") + _bytes(2, _number(1, _STRING) + _bytes(8, SIGNAL_UNITS[signal].encode()))
        )
        head = _bytes(1, signal.encode()) + _number(2, self._aliases[m.key, signal])
        return head + _number(3, ts_ms) + _number(4, _DOUBLE) + _number(7, 1) + unit

    def encode(self, machine: Machine, ts_us: int, values: Values) -> Iterator[Message]:
        ts_ms = ts_us // 1000
        self._last[machine.key] = dict(values)
        metrics = [encode_metric(ts_ms=ts_ms, value=v, alias=self._aliases[machine.key, s]) for s, v in values.items()]
        yield Message(
            self._topic("DDATA", self._device(machine)),
            encode_payload(ts_ms=ts_ms, metrics=metrics, seq=self._next()),
            qos=0,
        )

    def rest(self) -> Iterable[Message]:
        return ()

    def closing(self, now_us: int) -> Iterator[Message]:
        yield self._death(now_us)

    def command(self, topic: str, payload: bytes, now_us: int) -> Iterable[Message]:
        """Answer a rebirth request with all births."""
        if topic == self._topic("NCMD") and b"Node Control/Rebirth" in payload:
            return self.opening(now_us)
        return ()
