"""From MQTT to durable rows: the collector, the payload formats, the one writer of readings.

Owns the connection to the broker, what bytes mean, and tables `reading`, `reading_text`, `waveform`, `batch`,
`rejected_message`, `liveness`, `collector`. Must not know detection, tickets or the simulators.

    session (frames) ─▶ intake (route, decode) ─▶ batch ─▶ writer thread: seal, COPY, ledger row, COMMIT
       ▲                                                              │
       └────────────── PUBACKs of the batch, one write ◀──────────────┘
"""
