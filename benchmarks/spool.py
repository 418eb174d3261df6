"""How fast a spool drains into the database, and what live traffic notices of it.

A spool is filled beforehand with the messages of a plant, in pieces as an outage leaves them. A collector that starts on it
stores them oldest first while a synthetic broker sends live messages at a constant rate. The rate of the drain is taken
between a tenth and nine tenths of it, live messages included; the baseline is binary COPY of as many rows into the same keyed table `reading`, sorted,
in batches of 10,000. The two alternate. For live messages the time from sending to PUBACK is taken, with a spool to drain
and without; when it is over nothing more is sent, and what is not acknowledged half a minute later counts with the time it has
waited so far.
"""

import argparse
import os
import platform
import statistics
import tempfile
import threading
import time
from pathlib import Path

import psycopg

from benchmarks.corpus import versions
from benchmarks.ingest import BATCH, SENSORS, copy_rows, database, first_ms
from benchmarks.subjects import percentile, running
from benchmarks.synthetic_broker import Plant, in_process
from fettle import clock
from ingest.frames import Frames, cut_publishes
from ingest.spool import Spool, Spooled

_LIVE_S = 3.0  # at least so long live messages are sent
_SLOWEST = 500  # messages a second; a drain that takes longer, and a minute for the start, has failed
_PATIENCE_S = 30.0  # for the last live messages
_PIECE = 250  # messages that an outage at 5000 a second leaves in one write


def _fill(folder: Path, plant: Plant) -> int:
    """Write the messages of a plant to a spool; return its bytes."""
    spool = Spool(folder, max_bytes=1 << 40)
    received_us = clock.now_us() - 3_600_000_000
    for start in range(0, plant.messages, 50_000):
        frames = Frames()
        data = plant.frames(start, min(start + 50_000, plant.messages), is_redelivery=False)
        cut_publishes(data, 0, is_v5=True, into=frames)
        messages = [
            Spooled(topic, payload, received_us + (start + i) // _PIECE * 50_000)
            for i, (topic, payload) in enumerate(zip(frames.topics, frames.payloads, strict=True))
        ]
        for at in range(0, len(messages), _PIECE):
            spool.append(messages[at : at + _PIECE])
    size = spool.size_bytes
    spool.close()
    return size


def _drain(url: str, folder: Path, *, name: str, messages: int, live_rate: float) -> tuple[float, list[float]]:
    """Start a collector on a filled spool; return messages drained a second, and delays of live messages.

    Raises:
        TimeoutError: the spool is not drained in time.
    """
    plant = Plant(int(live_rate * 600), sensors=20, start_ms=first_ms(0) - 60_000_000, period_ms=1)
    settings = {
        "collector_name": name,
        "collector_spool": "spool",
        "data_dir": folder,
        "collector_future_skew_s": 1e6,
    }
    query = """
        SELECT coalesce(sum(stored), 0)::bigint FROM batch AS b JOIN collector AS c ON c.id = b.collector_id
        WHERE c.name = %s
    """
    seen: list[tuple[float, int]] = []
    is_over = threading.Event()

    def watch() -> None:  # from before the start: the collector drains while it still connects to the broker
        with psycopg.connect(url, autocommit=True) as conn:
            while not is_over.wait(0.02):
                row = conn.execute(query, (name,)).fetchone()
                seen.append((time.perf_counter(), int(row[0]) if row else 0))

    watcher = threading.Thread(target=watch, name="watch", daemon=True)
    with in_process(plant, rate=live_rate) as broker:
        watcher.start()
        try:
            with running("collector", broker.port, url, settings):
                ready_s = time.perf_counter()
                deadline_s = ready_s + 60 + messages / _SLOWEST
                while time.perf_counter() < ready_s + _LIVE_S or not seen or seen[-1][1] < messages:
                    if time.perf_counter() > deadline_s:
                        raise TimeoutError(
                            f"{seen[-1][1] if seen else 0:,} of {messages:,} messages were drained in time"
                        )
                    time.sleep(0.05)
                broker.hold()
                deadline_s = time.perf_counter() + _PATIENCE_S
                while (tally := broker.tally()).acknowledged < tally.sent and time.perf_counter() < deadline_s:
                    time.sleep(0.05)
        finally:
            is_over.set()
            watcher.join()
    if tally.waiting_s:
        print(f"{tally.sent - tally.acknowledged:,} of {tally.sent:,} live messages were never acknowledged")
    delays_s = tally.delays_s + tally.waiting_s
    if not messages:
        return 0.0, delays_s
    first = next(entry for entry in seen if entry[1] >= messages * 0.1)
    last = next(entry for entry in seen if entry[1] >= messages * 0.9)
    return (last[1] - first[1]) / (last[0] - first[0]), delays_s


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="python -m benchmarks spool", description=__doc__)
    parser.add_argument("--messages", type=int, default=600_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--live-rate", type=float, default=1000.0, help="live messages a second")
    parser.add_argument("--storage", choices=("plain", "timescale"), default="plain")
    args = parser.parse_args(argv)
    if min(args.messages, args.rounds, args.live_rate) <= 0:
        parser.error("--messages, --rounds and --live-rate must be above zero")
    print(__doc__)
    print(
        f"python {platform.python_version()}, {versions('psycopg', 'numpy', 'orjson')}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}, {args.messages:,} messages, COPY in batches of {BATCH:,}\n"
    )
    rates, ratios = [], []
    with_drain: list[float] = []
    with tempfile.TemporaryDirectory(prefix="fettle-bench-") as temporary:
        folder = Path(temporary)
        with database(folder, args.storage) as url:
            for n in range(args.rounds):
                copied = copy_rows(url, "reading", args.messages, first_sensor=1_000_000 * (n + 1))
                plant = Plant(args.messages, sensors=SENSORS, start_ms=first_ms(args.messages) - 86_400_000 * (n + 1))
                own = folder / f"data{n}"
                size = _fill(own / "spool" / f"drain-{n}", plant)
                rate, delays = _drain(url, own, name=f"drain-{n}", messages=args.messages, live_rate=args.live_rate)
                rates.append(rate)
                ratios.append(rate / copied)
                with_drain += delays
                print(
                    f"COPY {copied:>10,.0f} rows/s   drain {rate:>10,.0f} messages/s of {size / 1e6:.0f} MB   "
                    f"ratio {rate / copied:.3f}   live p99 {percentile(delays, 0.99) * 1000:.0f} ms",
                    flush=True,
                )
            _, alone = _drain(url, folder / "data", name="drain-none", messages=0, live_rate=args.live_rate)
            print(f"live p99 without a spool {percentile(alone, 0.99) * 1000:.0f} ms")
    return {
        "spool_drain_ratio": round(statistics.median(ratios), 3),
        "spool_drain_messages_a_second": round(statistics.median(rates)),
        "live_p99_ms_while_draining": round(percentile(with_drain, 0.99) * 1000, 1),
        "live_p99_ms_otherwise": round(percentile(alone, 0.99) * 1000, 1),
    }
