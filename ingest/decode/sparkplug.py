"""Sparkplug B 3.0 as a host application sees it: births, aliases, sequence numbers, deaths.

A pure state machine: messages and the time go in, readings and commands to publish come out. It holds no client and no
clock. One `Host` serves one connection, because a node's messages carry a sequence number: never share the subscription.

    NBIRTH, DBIRTH ─▶ names, aliases, datatypes (and values, which are stored)
    NDATA, DDATA   ─▶ readings; a gap, an unknown alias or data before a birth ─▶ wait, then ask for a rebirth, debounced
    NDEATH, DDEATH ─▶ liveness, and one null reading of quality stale per metric

What a restart must not forget, names and aliases, leaves by `take_changed` and comes back by `restore`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from fettle.model import Quality
from ingest.decode.model import BadPayload, Context, Decoded, Liveness, Reason, Sample, check_name, check_size
from ingest.decode.sparkplug_payload import DataType, OutMetric, encode, parse, read_properties, read_scalar
from ingest.decode.sparkplug_values import (
    DATATYPES,
    DOUBLE,
    END_US,
    FIELD_OF,
    FLOAT,
    LARGEST,
    NUMBERS,
    SIGNED,
    Device,
    Metric,
    Node,
    NodeKey,
    path_of,
    place_of,
    store,
)

NAMESPACE = "spBv1.0"
REBIRTH = "Node Control/Rebirth"
_KINDS = frozenset({"NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"})
_COMMANDS = frozenset({"NCMD", "DCMD"})
_UNIT_PROPERTIES = ("engunit", "engineering units", "engineering_units", "engineeringunits", "unit", "units", "uom")
_RATE_PROPERTIES = ("fs_hz", "fs", "sample_rate", "samplerate", "sampling_rate", "samplingrate")
_CONTROL = ("Node Control/", "Device Control/")
_GOOD = Quality.GOOD
_new = tuple.__new__  # half the cost of calling the named tuple


class Command(NamedTuple):
    """A message the host must publish, QoS 0, not retained."""

    topic: str
    payload: bytes


@dataclass(slots=True)
class Counters:
    """Counted since the start."""

    gaps: int = 0  # sequence gaps that outlasted the reorder time
    rebirths: int = 0  # rebirth requests sent


class Host:
    """The state of all edge nodes behind one connection."""

    def __init__(
        self,
        *,
        reorder_us: int = 2_000_000,
        rebirth_us: int = 10_000_000,
        rebirth_most_us: int = 600_000_000,
        max_nodes: int = 10_000,
    ) -> None:
        self.counters = Counters()
        self._reorder_us = reorder_us
        self._rebirth_us = rebirth_us
        self._rebirth_most_us = rebirth_most_us
        self._max_nodes = max_nodes
        self._nodes: dict[NodeKey, Node] = {}
        self._attention: set[NodeKey] = set()  # nodes with a gap or a rebirth to ask for
        self._changed: set[NodeKey] = set()

    def receive(self, context: Context, topic: str, payload: bytes, received_us: int) -> Decoded:
        """Take one message of the namespace.

        Raises:
            BadPayload: nothing in it can be stored. A rebirth is asked for where that may mend it.
        """
        levels = topic.split("/")
        if len(levels) >= 2 and levels[1] == "STATE":
            return Decoded(ignored=1)  # of hosts; ours is handled by `HostState`
        if len(levels) not in {4, 5} or levels[2] not in _KINDS | _COMMANDS:
            raise BadPayload(
                Reason.BAD_NAME, f"topic {topic[:120]!r}; {NAMESPACE}/group/message type/edge node[/device] is meant"
            )
        group, kind, edge = levels[1:4]
        device = levels[4] if len(levels) == 5 else ""
        if kind in _COMMANDS:
            return Decoded(ignored=1)
        if (kind[0] == "D") != bool(device):
            raise BadPayload(Reason.BAD_NAME, f"{kind} {'without' if kind[0] == 'D' else 'with'} a device in its topic")
        check_size(payload, context.options.limits)
        node = self._node(context, group, edge)
        try:
            body = parse(payload, max_bytes=context.options.limits.max_bytes)
        except BadPayload:
            if kind != "NDEATH":
                self._want_rebirth(node)
            raise
        limit = context.options.limits.max_records
        if len(body.metrics) > limit:
            raise BadPayload(Reason.TOO_MANY, f"{len(body.metrics)} metrics; max_records is {limit}")
        out = Decoded()
        match kind:
            case "NBIRTH" | "DBIRTH":
                self._birth(node, device, body, received_us, out)
            case "NDATA" | "DDATA":
                self._data(node, device, body, received_us, out)
            case "NDEATH":
                self._node_death(node, body, received_us, out)
            case _:
                self._follow(node, body, received_us)
                self._device_death(node, device, received_us, out)
        if node.rebirth_wanted:
            self._attention.add(node.key)
        return out

    def _node(self, context: Context, group: str, edge: str) -> Node:
        key = (context.tenant, group, edge)
        node = self._nodes.get(key)
        if node is None:
            if len(self._nodes) >= self._max_nodes:
                raise BadPayload(Reason.TOO_MANY, f"more than {self._max_nodes} edge nodes")
            check_name("group", group)
            check_name("edge node", edge)
            node = self._nodes[key] = Node(key, context)
        node.context = context
        return node

    # births

    def _birth(self, node: Node, device: str, body: Any, received_us: int, out: Decoded) -> None:
        if not device:
            # a node's birth begins a new session: its devices will be born again
            node.devices = {}
            node.bd_seq = _bd_seq(body)
            node.is_online = True
            node.expected_seq = (body.seq + 1) % 256 if body.HasField("seq") else None
            node.early.clear()
            node.gap_since_us = None
            node.rebirth_wanted = False
            self._attention.discard(node.key)
        else:
            self._follow(node, body, received_us)
            if not node.is_online:
                self._want_rebirth(node)
        born = node.devices[device] = Device(is_online=True)
        self._changed.add(node.key)
        for sent in body.metrics:
            if not sent.name or sent.datatype not in DATATYPES:
                if _is_control(sent.name):
                    out.ignored += 1
                elif sent.name:
                    out.reject(Reason.UNSUPPORTED, f"{sent.name[:100]}: datatype {sent.datatype}")
                else:
                    out.reject(Reason.UNKNOWN_METRIC, "a metric without a name in a birth")
                continue
            if _is_control(sent.name):
                out.ignored += 1
                continue
            properties = read_properties(sent)
            rate = next((properties[key] for key in _RATE_PROPERTIES if key in properties), None)
            unit = next((properties[key] for key in _UNIT_PROPERTIES if isinstance(properties.get(key), str)), None)
            metric = Metric(
                sent.name,
                sent.alias if sent.HasField("alias") else None,
                sent.datatype,
                str(unit) if unit else None,
                float(rate) if isinstance(rate, int | float) and 0 < rate < 1e12 else None,
            )
            born.add(metric)
            store(node, device, metric, sent, body.timestamp, out, properties)
        self._tell(node, device, is_online=True, received_us=received_us, out=out)

    # data

    def _data(self, node: Node, device: str, body: Any, received_us: int, out: Decoded) -> None:
        self._follow(node, body, received_us)
        known = node.devices.get(device)
        if known is None:
            known = node.devices[device] = Device()
        if not node.is_online or not known.is_online:
            self._want_rebirth(node)
        context = node.context
        by_alias, by_name = known.by_alias, known.by_name
        payload_ms = body.timestamp
        append = out.samples.append
        for sent in body.metrics:
            if sent.name:
                metric = by_name.get(sent.name)
            else:
                alias = sent.alias
                metric = by_alias.get(alias) if alias or sent.HasField("alias") else None
            if metric is None:
                self._store_unknown(node, device, sent, payload_ms, out)
                continue
            # the common case, kept free of calls: a number, live, without properties
            kind = metric.kind
            if kind and not (sent.is_null or sent.is_transient or sent.is_historical or sent.HasField("properties")):
                if kind == DOUBLE:
                    value = sent.double_value
                elif kind == FLOAT:
                    value = sent.float_value
                else:
                    value = sent.int_value
                    if kind == SIGNED and value >> 31:
                        value -= 1 << 32
                    value = float(value)
                # zero may also be a field that is not set; infinities and NaN fail the comparison
                if (value and -LARGEST <= value <= LARGEST) or (value == 0.0 and sent.HasField(FIELD_OF[kind])):
                    ts_us = (sent.timestamp or payload_ms) * 1000
                    path = metric.path
                    if path is not None and 0 < ts_us < END_US:
                        append(_new(Sample, (path, ts_us, value, metric.unit, _GOOD, 0, None)))
                        continue
            store(node, device, metric, sent, payload_ms, out, None)
        if len(out.samples) + len(out.rejected) > context.options.limits.max_records:
            raise BadPayload(Reason.TOO_MANY, f"more than {context.options.limits.max_records} readings")

    def _store_unknown(self, node: Node, device: str, sent: Any, payload_ms: int, out: Decoded) -> None:
        """Store a metric that no birth named if it says everything itself, else reject it; ask for a birth either way."""
        if _is_control(sent.name):
            out.ignored += 1
            return
        self._want_rebirth(node)
        if not sent.name:
            reason = Reason.UNKNOWN_ALIAS if node.is_online else Reason.BEFORE_BIRTH
            out.reject(reason, f"alias {sent.alias} was in no birth; a rebirth is asked for")
            return
        datatype = sent.datatype
        if datatype not in DATATYPES:
            which = sent.WhichOneof("value")
            datatype = {"float_value": DataType.FLOAT, "double_value": DataType.DOUBLE}.get(which)
            datatype = datatype or {"boolean_value": DataType.BOOLEAN, "string_value": DataType.STRING}.get(which)
            if datatype is None:
                out.reject(Reason.UNKNOWN_METRIC, f"{sent.name[:100]}: no birth gave its datatype")
                return
        store(node, device, Metric(sent.name, None, datatype), sent, payload_ms, out, None)

    # deaths

    def _node_death(self, node: Node, body: Any, received_us: int, out: Decoded) -> None:
        bd_seq = _bd_seq(body)
        if node.bd_seq is not None and bd_seq is not None and bd_seq != node.bd_seq:
            out.ignored += 1  # the will of an earlier connection
            return
        for device in sorted(node.devices):
            if device:
                self._device_death(node, device, received_us, out)
        self._device_death(node, "", received_us, out)
        node.is_online = False
        node.expected_seq = None
        node.early.clear()
        node.gap_since_us = None
        node.rebirth_wanted = False
        self._attention.discard(node.key)

    def _device_death(self, node: Node, device: str, received_us: int, out: Decoded) -> None:
        self._tell(node, device, is_online=False, received_us=received_us, out=out)
        gone = node.devices.get(device)
        if gone is None or not gone.is_online:
            return
        gone.is_online = False
        for metric in gone.by_name.values():
            if metric.datatype not in NUMBERS:
                continue
            try:
                path = path_of(node, device, metric)
            except BadPayload:
                continue  # its birth was rejected for the same reason
            out.samples.append(Sample(path, received_us, None, metric.unit, Quality.STALE, 0))

    @staticmethod
    def _tell(node: Node, device: str, *, is_online: bool, received_us: int, out: Decoded) -> None:
        try:
            place = place_of(node, device)
        except BadPayload as bad:
            out.reject(bad.reason, bad.detail)
            return
        out.liveness.append(Liveness(place, is_online, received_us, "birth" if is_online else "death"))

    # sequence numbers and rebirths

    def _follow(self, node: Node, body: Any, received_us: int) -> None:
        """Follow the node's sequence number; a gap starts the reorder time, the missing numbers end it."""
        if not body.HasField("seq"):
            self._want_rebirth(node)
            return
        seq = body.seq % 256
        if node.expected_seq is None:
            node.expected_seq = (seq + 1) % 256
            return
        if seq == node.expected_seq:
            node.expected_seq = (seq + 1) % 256
            while node.expected_seq in node.early:
                node.early.discard(node.expected_seq)
                node.expected_seq = (node.expected_seq + 1) % 256
            if not node.early and node.gap_since_us is not None:
                node.gap_since_us = None
                if not node.rebirth_wanted:
                    self._attention.discard(node.key)
            return
        if (seq - node.expected_seq) % 256 < 128:
            node.early.add(seq)
        if node.gap_since_us is None:
            node.gap_since_us = received_us
            self._attention.add(node.key)

    def _want_rebirth(self, node: Node) -> None:
        node.rebirth_wanted = True
        self._attention.add(node.key)

    def due(self, now_us: int, *, most: int = 50) -> list[Command]:
        """Return the rebirth requests to publish now, at most `most` so that a restart does not ask all nodes at once.

        Call it about twice a second. A node is asked again after 10 s, then after twice as long each time, even if it was
        born in between: one that never says all it sends would otherwise be asked without end.
        """
        commands: list[Command] = []
        for key in sorted(self._attention):
            node = self._nodes[key]
            if node.gap_since_us is not None and now_us - node.gap_since_us >= self._reorder_us:
                self.counters.gaps += 1
                node.gap_since_us = None
                node.early.clear()
                node.expected_seq = None
                node.rebirth_wanted = True
            if not node.rebirth_wanted or (node.asked_us is not None and now_us - node.asked_us < node.wait_us):
                continue
            if len(commands) == most:
                break
            is_calm = node.asked_us is None or now_us - node.asked_us >= 2 * node.wait_us
            node.wait_us = self._rebirth_us if is_calm else min(node.wait_us * 2, self._rebirth_most_us)
            node.asked_us = now_us
            self.counters.rebirths += 1
            commands.append(rebirth_command(group=key[1], edge=key[2], now_us=now_us))
        return commands

    # what outlives a restart

    def take_changed(self) -> dict[NodeKey, bytes]:
        """Return the names and aliases of the nodes born since the last call, to be kept in the database."""
        changed = {key: self._export(self._nodes[key]) for key in sorted(self._changed) if key in self._nodes}
        self._changed.clear()
        return changed

    @staticmethod
    def _export(node: Node) -> bytes:
        devices = {
            device: [[m.name, m.alias, int(m.datatype), m.unit, m.fs_hz] for m in known.by_name.values()]
            for device, known in node.devices.items()
        }
        return orjson.dumps({"version": 1, "devices": devices})

    def restore(self, context: Context, key: NodeKey, exported: bytes) -> None:
        """Take back what `take_changed` gave out.

        The node counts as online until it says otherwise, and is asked for a rebirth: it may have been born differently
        while nobody listened.

        Raises:
            BadPayload: not what `take_changed` writes.
        """
        try:
            body = orjson.loads(exported)
            if body["version"] != 1:
                raise BadPayload(Reason.UNSUPPORTED, f"alias map of version {body['version']}")
            node = Node(key, context, is_online=True)
            for device, metrics in body["devices"].items():
                known = node.devices[device] = Device(is_online=True)
                for name, alias, datatype, unit, fs_hz in metrics:
                    known.add(Metric(name, alias, int(DataType(datatype)), unit, fs_hz))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadPayload(Reason.BAD_STRUCTURE, f"no alias map: {error}") from None
        self._nodes[key] = node
        self._want_rebirth(node)


def rebirth_command(*, group: str, edge: str, now_us: int) -> Command:
    """Build the NCMD that asks an edge node to send all its births again."""
    metric = OutMetric(REBIRTH, DataType.BOOLEAN, value=True)
    return Command(f"{NAMESPACE}/{group}/NCMD/{edge}", encode(ts_ms=now_us // 1000, metrics=[metric], seq=None))


def _is_control(name: str) -> bool:
    return name == "bdSeq" or name.startswith(_CONTROL)


def _bd_seq(body: Any) -> int | None:
    for metric in body.metrics:
        if metric.name == "bdSeq":
            value = read_scalar(metric, 0)
            return value if isinstance(value, int) else None
    return None
