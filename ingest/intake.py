"""From messages to a batch: route by topic, decode, resolve sensors that are known.

The common case, one number with its time on a topic seen before, costs one dictionary look-up, one JSON parse and five
appends; where many of them arrive in one read they are parsed together and appended as columns. Everything else goes through the codec of the topic's rule, which also finds the words for what is wrong.
Whatever happens to a message, it is in the batch, so that the batch's acknowledgement covers it.
"""

from collections.abc import Callable
from itertools import repeat

from fettle import logs
from fettle.model import Flag, Quality
from ingest import waveform
from ingest.batch import Batch, Refusal, SignOfLife, TextReading, Wanted, Waveform
from ingest.catalogue import UNIT_MISMATCH, Catalogue, is_other_quantity, say_mismatch
from ingest.decode import (
    BadPayload,
    Decoded,
    Path,
    Reason,
    Sample,
    WaveformBurst,
    decode_signals,
    decode_value,
    decode_values,
    parse_together,
)
from ingest.frames import Frames
from ingest.topics import Route, Table

log = logs.get("ingest")
_MOST_ROUTES = 500_000
_MOST_SHAPES = 64
_WORTH_TOGETHER = 8  # messages in one read
_NAN = float("nan")
UNKNOWN = 0  # stands for a sensor that is still to be resolved; ids begin with 1


class _Topic:
    """What the collector remembers of one topic."""

    __slots__ = ("is_value", "route", "sensor_id", "shapes", "unit")

    def __init__(self, route: Route | None) -> None:
        self.route = route
        self.is_value = route is not None and route.is_plain and "sensor" in route.context.captures
        self.sensor_id = UNKNOWN
        self.unit: str | None = None  # as the sender spells it
        # signals by name, in the sender's order -> (sensor ids, units as sent)
        self.shapes: dict[tuple[str, ...], tuple[list[int], dict[str, str] | None]] = {}


class Intake:
    """Fills the current batch. Belongs to the event loop; `take_batch` hands the batch over and begins the next."""

    def __init__(
        self,
        table: Table,
        catalogue: Catalogue,
        *,
        on_broker: Callable[[bytes, bytes], None] = lambda _topic, _payload: None,
    ) -> None:
        self.batch = Batch()
        self.unknown_topics = 0
        self._table = table
        self._catalogue = catalogue
        self._topics: dict[bytes, _Topic] = {}
        self._content_topics: dict[tuple[bytes, str], _Topic] = {}
        self._on_broker = on_broker
        self._tick = 0

    def take_batch(self) -> Batch:
        full, self.batch = self.batch, Batch()
        return full

    def forget_topics(self) -> None:
        """Look every topic up again: sensors were disabled or enabled."""
        self._topics.clear()
        self._content_topics.clear()

    def take(self, frames: Frames, received_us: int) -> None:
        """Append messages that arrived together to the batch."""
        batch = self.batch
        first = len(batch.topics)
        topics, payloads = frames.topics, frames.payloads
        batch.topics += topics
        batch.payloads += payloads
        batch.packet_ids += frames.packet_ids
        batch.received_us = max(received_us, batch.received_us)
        if frames.ticks:
            batch.ticks.update(enumerate(frames.ticks, first))
        if frames.redelivered:
            batch.is_suspect = True
        odd = frames.retained or frames.content_types
        for i, content_type in frames.content_types.items():
            batch.content_types[first + i] = content_type
        if not odd and len(topics) >= _WORTH_TOGETHER and self._take_together(topics, payloads, first):
            return
        known_topics = self._topics
        sensor_ids, ts, values, owners = batch.sensor_ids, batch.ts, batch.values, batch.owners
        message = first - 1
        for topic, payload in zip(topics, payloads, strict=True):
            message += 1
            known = known_topics.get(topic)
            if known is None or odd:
                self._take_slowly(frames, message - first, message, received_us)
                continue
            if known.is_value:
                value = decode_value(payload)
                if value is not None and known.sensor_id and value[2] == known.unit:
                    sensor_ids.append(known.sensor_id)
                    ts.append(value[0])
                    values.append(value[1])
                    owners.append(message)
                    continue
            elif known.shapes:
                signals = decode_signals(payload)
                if signals is not None:
                    shape = known.shapes.get(signals[1])
                    if shape is not None and shape[1] == signals[3]:
                        n = len(shape[0])
                        sensor_ids += shape[0]
                        ts += repeat(signals[0], n)
                        values += signals[2]
                        owners += repeat(message, n)
                        continue
            self._take_slowly(frames, message - first, message, received_us)

    def _take_together(self, topics: list[bytes], payloads: list[bytes], first: int) -> bool:
        """Take messages all of which say one number each, on known topics, in the form that their topic had before.

        Answers False, having done nothing, where one of them is another kind of message.
        """
        known_topics = self._topics
        try:
            known = [known_topics[topic] for topic in topics]
        except KeyError:
            return False
        sensor_ids = [topic.sensor_id for topic in known]  # only a topic of one value has learned it
        if not all(sensor_ids):
            return False
        bodies = parse_together(payloads)
        if bodies is None:
            return False
        decoded = decode_values(bodies, [topic.unit for topic in known])
        if decoded is None:
            return False
        batch = self.batch
        batch.sensor_ids += sensor_ids
        batch.ts += decoded[0]
        batch.values += decoded[1]
        batch.owners += range(first, first + len(topics))
        return True

    def _take_slowly(self, frames: Frames, i: int, message: int, received_us: int) -> None:
        try:
            self._take_one(frames, i, message, received_us)
        except (
            Exception
        ) as error:  # our own oversight must cost one refused message, not the connection again and again
            log.exception("message.failed", topic=frames.topics[i].decode("utf-8", "replace"))
            self._refuse(message, None, "internal_error", f"{type(error).__name__}: {error}")

    def _take_one(self, frames: Frames, i: int, message: int, received_us: int) -> None:
        topic, payload = frames.topics[i], frames.payloads[i]
        if topic.startswith(b"$SYS/"):
            self._on_broker(topic, payload)
            self.batch.system_messages += 1
            return
        # Messages without a time of their own must not collide; those read again say the same as when they came.
        self._tick = frames.ticks[i] if frames.ticks else max(received_us, self._tick + 1)
        self.batch.ticks[message] = self._tick
        is_retained = i in frames.retained
        if is_retained:
            self.batch.retained.add(message)
        known = self._find_topic(topic, frames.content_types.get(i), message)
        if known is None:
            return
        route = known.route
        if route is None:
            self.unknown_topics += 1
            self._refuse(message, None, Reason.NO_RULE.value, "no topic rule matches")
            return
        try:
            decoded = self._decode(route, topic, payload)
        except BadPayload as bad:
            self._refuse(message, route.tenant, bad.reason.value, bad.detail)
            return
        self.add(decoded, message, tenant=route.tenant, received_us=self._tick, is_stale=is_retained)
        if route.is_plain and not is_retained and not decoded.rejected and not decoded.ignored:
            self._learn(known, payload, decoded)

    def _decode(self, route: Route, topic: bytes, payload: bytes) -> Decoded:  # noqa: ARG002 -- for those who need it
        return route.decode(payload, self._tick)

    def add(self, decoded: Decoded, message: int, *, tenant: str, received_us: int, is_stale: bool = False) -> None:
        """Append what one message said. `is_stale`: the broker had kept it; without a time of its own it says nothing."""
        batch = self.batch
        before = len(batch.ts) + len(batch.texts) + len(batch.waveforms) + len(batch.life)
        for sample in decoded.samples:
            if is_stale and sample.ts_us is None:
                batch.ignored_readings += 1
            else:
                self._add_sample(sample, message, tenant, received_us)
        for burst in decoded.waveforms:
            if is_stale and burst.t0_us is None:
                batch.ignored_readings += 1
            else:
                self._add_waveform(burst, message, tenant, received_us)
        for life in decoded.liveness:
            at_us = received_us if life.ts_us is None else life.ts_us
            batch.life.append(SignOfLife(tenant, "/".join(life.path), life.is_online, at_us, life.detail))
        if decoded.rejected:
            first = decoded.rejected[0]
            n = len(decoded.rejected)
            detail = first.detail if n == 1 else f"{first.detail}; and {n - 1} more"
            self._refuse(message, tenant, first.reason.value, detail, readings=n)
        after = len(batch.ts) + len(batch.texts) + len(batch.waveforms) + len(batch.life)
        batch.ignored_readings += decoded.ignored
        if after == before and not decoded.rejected:
            batch.ignored_messages += 1

    def _find_topic(self, topic: bytes, content_type: str | None, message: int) -> _Topic | None:
        known = self._topics.get(topic) if content_type is None else self._content_topics.get((topic, content_type))
        if known is not None:
            return known
        try:
            route = self._table.route(topic.decode(), content_type=content_type)
        except UnicodeDecodeError:
            self._refuse(message, None, Reason.BAD_NAME.value, "the topic is not UTF-8")
            return None
        except BadPayload as bad:
            self._refuse(message, None, bad.reason.value, bad.detail)
            return None
        known = _Topic(route)
        if len(self._topics) + len(self._content_topics) >= _MOST_ROUTES:
            self.forget_topics()
        if content_type is None:
            self._topics[topic] = known
        else:
            self._content_topics[topic, content_type] = known
        return known

    def _refuse(self, message: int, tenant: str | None, reason: str, detail: str, *, readings: int = 0) -> None:
        self.batch.refusals.append(Refusal(message, tenant, reason, detail, readings))

    def _find_sensor(self, message: int, tenant: str, path: Path, unit: str | None) -> tuple[int, Wanted | None] | None:
        """Return the sensor's id, or what the writer must resolve; None where the reading goes no further."""
        sensor = self._catalogue.find(tenant, path, unit)
        if sensor is None:
            return UNKNOWN, Wanted(tenant, path, unit)
        if not sensor.is_enabled:
            self.batch.ignored_readings += 1
            return None
        if unit and is_other_quantity(sensor, unit):
            self._refuse(message, tenant, UNIT_MISMATCH, say_mismatch(sensor, path, unit), readings=1)
            return None
        return sensor.id, None

    def _add_sample(self, sample: Sample, message: int, tenant: str, received_us: int) -> None:
        batch = self.batch
        found = self._find_sensor(message, tenant, sample.path, sample.unit)
        if found is None:
            return
        sensor_id, wanted = found
        ts_us, flags = sample.ts_us, sample.flags
        if ts_us is None:
            ts_us, flags = received_us, flags | Flag.RECEIVE_TIME
        if sample.text is not None:
            batch.texts.append(TextReading(message, sensor_id, wanted, ts_us, sample.quality, flags, sample.text))
            return
        row = len(batch.ts)
        if wanted is not None:
            batch.wanted[row] = wanted
        if flags or sample.quality != Quality.GOOD:
            batch.odd[row] = (sample.quality, flags)
        batch.sensor_ids.append(sensor_id)
        batch.ts.append(ts_us)
        batch.values.append(_NAN if sample.value is None else sample.value)
        batch.owners.append(message)

    def _add_waveform(self, burst: WaveformBurst, message: int, tenant: str, received_us: int) -> None:
        t0_us, flags = burst.t0_us, burst.flags
        if t0_us is None:
            t0_us, flags = received_us - round((burst.n - 1) / burst.fs_hz * 1e6), flags | Flag.RECEIVE_TIME
        found = self._find_sensor(message, tenant, burst.path, burst.unit)
        if found is None:
            return
        self.batch.waveforms.append(Waveform(message, found[0], found[1], t0_us, burst))
        for feature in waveform.features(burst):
            path = (burst.path[0], burst.path[1], f"{burst.path[2]}.{feature.name}")
            sample = Sample(path, t0_us, feature.value, feature.unit, Quality.GOOD, flags)
            self._add_sample(sample, message, tenant, received_us)

    def _learn(self, known: _Topic, payload: bytes, decoded: Decoded) -> None:
        """Remember how a message of this form was resolved, if the short way reads the same from it."""
        samples = decoded.samples
        if decoded.waveforms or decoded.liveness or not samples or any(s.text is not None for s in samples):
            return
        assert known.route is not None
        ids = []
        for sample in samples:
            sensor = self._catalogue.find(known.route.tenant, sample.path, sample.unit)
            if sensor is None or not sensor.is_enabled or (sample.unit and is_other_quantity(sensor, sample.unit)):
                return
            ids.append(sensor.id)
        if known.is_value:
            value = decode_value(payload)
            if value is not None and len(samples) == 1 and _same(samples[0], value[0], value[1]):
                known.sensor_id, known.unit = ids[0], value[2]
            return
        signals = decode_signals(payload)
        if signals is None or len(signals[2]) != len(samples) or len(known.shapes) >= _MOST_SHAPES:
            return
        if all(_same(s, signals[0], v) for s, v in zip(samples, signals[2], strict=True)):
            known.shapes[signals[1]] = (ids, signals[3])


def _same(sample: Sample, ts_us: int, value: float) -> bool:
    return sample.ts_us == ts_us and sample.value == value and sample.quality == Quality.GOOD and not sample.flags
