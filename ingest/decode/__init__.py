"""Payload formats: from one message to readings, text readings, waveforms and liveness events.

Owns what bytes mean. Knows no MQTT client, no database, no sensor ids and no clock: a codec is a pure function of what
the topic said, the payload and the time of receipt. (Sparkplug B alone has memory; it is a state machine with the time
as an argument.) Which codec applies to a topic is data: see `ingest.topics`.

    topic ─▶ topics.Table.route() ─▶ Route(format, Context)        once per topic, cached by the collector
    Route.decode(payload, received_us) ─▶ Decoded | BadPayload      every message
    decode_value(payload) / decode_signals(payload) ─▶ tuple | None   the two commonest shapes, without objects
    parse_together(payloads), decode_values(bodies, units)            the commonest one, many at a time

A message is either decoded, in whole or in part (`Decoded.rejected` lists the parts that were not), or refused with
`BadPayload`; nothing else escapes.
"""

from ingest.decode.fast import decode_signals, decode_value, decode_values, parse_together
from ingest.decode.instant import ClockPolicy, Verdict, judge, judge_batch, read_instant
from ingest.decode.model import (
    BadPayload,
    Codec,
    CodecOptions,
    Context,
    Decoded,
    Limits,
    Liveness,
    Path,
    Reason,
    Rejection,
    Sample,
    WaveformBurst,
)

__all__ = [
    "BadPayload",
    "ClockPolicy",
    "Codec",
    "CodecOptions",
    "Context",
    "Decoded",
    "Limits",
    "Liveness",
    "Path",
    "Reason",
    "Rejection",
    "Sample",
    "Verdict",
    "WaveformBurst",
    "decode_signals",
    "decode_value",
    "decode_values",
    "judge",
    "judge_batch",
    "parse_together",
    "read_instant",
]
