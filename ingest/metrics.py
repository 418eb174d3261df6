"""The collector's figures in Prometheus' text format, and a small server for them."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from fettle import logs
from ingest.collector import Collector
from ingest.counters import Account
from ingest.writer import State

log = logs.get("ingest")
_PREFIX = "fettle_ingest_"
_OUTCOMES = ("received", "done", "duplicates", "collisions", "rejected", "ignored", "spooled", "returned", "in_flight")


@dataclass(slots=True)
class Page:
    """Lines of one page, each family with its help and type once."""

    lines: list[str] = field(default_factory=list)

    def add(self, name: str, kind: str, text: str, samples: Iterable[tuple[str, float]]) -> None:
        self.lines += [f"# HELP {_PREFIX}{name} {text}", f"# TYPE {_PREFIX}{name} {kind}"]
        self.lines += [f"{_PREFIX}{name}{labels} {value:.10g}" for labels, value in samples]

    def one(self, name: str, kind: str, text: str, value: float) -> None:
        self.add(name, kind, text, [("", value)])


def _label(**labels: str) -> str:
    escaped = ((k, v.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for k, v in labels.items())
    return "{" + ",".join(f'{k}="{v}"' for k, v in escaped) + "}"


def _outcomes(account: Account) -> list[tuple[str, float]]:
    return [(_label(outcome=name), getattr(account, name)) for name in _OUTCOMES]


def render(collector: Collector, *, now_s: float) -> str:
    """Return the page of one collector; `now_s` is monotonic."""
    page, counters, status = Page(), collector.counters, collector.writer.status
    page.add("messages", "gauge", "Messages by what became of them; received is the sum of all others.", _outcomes(counters.messages))  # fmt: skip
    page.add("readings", "gauge", "Readings by what became of them; received is the sum of all others.", _outcomes(counters.readings))  # fmt: skip
    page.one("bytes_total", "counter", "Bytes of messages received.", counters.bytes_received)
    page.one("batches_total", "counter", "Batches committed.", counters.batches)
    page.one("late_readings_total", "counter", "Readings stored later than counts as live.", counters.late)
    page.one("reconnects_total", "counter", "Connections to the broker that were lost.", counters.reconnects)
    page.one(
        "session_lost_total", "counter", "Times that the broker had forgotten our session.", counters.sessions_lost
    )
    page.one("unknown_topics_total", "counter", "Messages on topics that no rule matches.", collector.intake.unknown_topics)  # fmt: skip
    page.one("sensors", "gauge", "Sensors known in memory.", len(collector.writer.catalogue))
    page.one("oldest_unacked_seconds", "gauge", "Age of the oldest message that is not acknowledged.", collector.oldest_unacked_s(now_s))  # fmt: skip
    page.one("window_used", "gauge", "Messages received and not acknowledged.", counters.messages.in_flight)
    page.one("window_limit", "gauge", "Receive maximum asked of the broker.", collector.options.receive_maximum)
    page.one("connected", "gauge", "Whether the broker is subscribed to.", collector.is_connected.is_set())
    page.one("conflict_path_active", "gauge", "Whether batches take the conflict path.", status.conflict_path)
    page.add("retries_total", "counter", "Statements tried again, by SQLSTATE.", [(_label(sqlstate=state), n) for state, n in sorted(status.retries.items())])  # fmt: skip
    page.add("state", "gauge", "How the writer is doing.", [(_label(state=state.value), status.state is state) for state in State])  # fmt: skip
    page.add("halted", "gauge", "1 while nothing can be stored until somebody mends it, with the reason.", [(_label(reason=status.reason), 1)] if status.state is State.HALTED else [("", 0)])  # fmt: skip
    histogram = counters.latency
    page.add(
        "receipt_to_commit_seconds",
        "histogram",
        "Time from the first message of a batch to its commit.",
        [(f"_bucket{_label(le=bound)}", n) for bound, n in histogram.cumulative()]
        + [("_sum", histogram.total), ("_count", histogram.count)],
    )
    spool = collector.desk.spool
    page.one("spool_bytes", "gauge", "Bytes of the spool on disk.", 0 if spool is None else spool.size_bytes)
    page.one("spool_messages", "gauge", "Messages in the spool.", 0 if spool is None else spool.messages)
    page.one("spool_damaged_total", "counter", "Damaged spans set aside.", 0 if spool is None else spool.damaged)
    if collector.broker_dropped is not None:
        page.one("broker_dropped_total", "counter", "Messages that the broker says it dropped, for anybody.", collector.broker_dropped)  # fmt: skip
    for name, text, value in collector.own_figures():
        page.one(name, "counter", text, value)
    return "\n".join(page.lines) + "\n"


async def serve(port: int, pages: Callable[[], str], *, stop: asyncio.Event) -> None:
    """Answer every request on a loopback port with the page, until `stop` is set."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(5):
                await reader.readuntil(b"\r\n\r\n")
                body = pages().encode()
                writer.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                    b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                )
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError) as error:
            log.debug("metrics.request_failed", why=repr(error))
        finally:
            writer.close()

    try:
        server = await asyncio.start_server(answer, "127.0.0.1", port)
    except OSError as error:
        remedy = "choose another FETTLE_COLLECTOR_METRICS_PORT"
        log.error("metrics.port_taken", port=port, why=str(error), remedy=remedy)  # noqa: TRY400 -- foreseen
        return
    async with server:
        await stop.wait()
