"""What the rest of Fettle may use of ingestion.

counters = await collect(settings, url=url, stop=stop)           # the collector's whole life
with bulk_writer(settings, url=url, name="import") as bulk:      # history, through the same writer and ledger
    bulk.store(rows)
"""

import asyncio
import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from fettle.clock import monotonic_s, now_us
from fettle.errors import FettleError
from fettle.settings import Settings
from fettle.wire import READING_DTYPE, ReadingArray
from ingest.batch import Sealed, Wanted, sort_unique
from ingest.catalogue import Refused, RegistrationPolicy, is_other_quantity
from ingest.collector import Collector
from ingest.counters import Counters
from ingest.decode import ClockPolicy
from ingest.housekeeping import apply_policies, clean_up, keep_house, roll_up_all
from ingest.importer import Columns, Imported, import_file
from ingest.metrics import render, serve
from ingest.options import CollectorOptions
from ingest.preflight import Finding
from ingest.preflight import preflight as check_broker
from ingest.rejected import Choice, Pile, Rejected, Retried, count_rejected, list_rejected
from ingest.rejected import retry_rejected as retry
from ingest.session import Address
from ingest.sparkplug_collector import SparkplugCollector
from ingest.store import Messages, Outcome
from ingest.topics import load_table
from ingest.writer import Writer, WriterOptions

__all__ = [
    "BulkWriter",
    "Choice",
    "Collector",
    "Columns",
    "Counters",
    "Finding",
    "Imported",
    "Pile",
    "Rejected",
    "Retried",
    "SensorRefused",
    "apply_policies",
    "bulk_writer",
    "clean_up",
    "collect",
    "count_rejected",
    "import_file",
    "keep_house",
    "list_rejected",
    "make_collector",
    "make_options",
    "make_sparkplug",
    "metrics_page",
    "preflight",
    "retry_rejected",
    "roll_up_all",
    "writer_options",
]


class SensorRefused(FettleError):
    """{place} cannot be stored: {why}."""


_DAY_US = 86_400 * 1_000_000
_FOREVER_DAYS = 11_000  # some thirty years: a clock that was never set says 1970, and must not make partitions there
_AT_ONCE = 20_000


def writer_options(settings: Settings) -> WriterOptions:
    """Return the policies that the settings ask for."""
    return WriterOptions(
        clock=ClockPolicy(
            future_us=round(settings.collector_future_skew_s * 1e6),
            future=settings.collector_future_policy,
            retention_us=(settings.reading_days or _FOREVER_DAYS) * _DAY_US,
        ),
        registration=RegistrationPolicy(unknown=settings.collector_unknown, max_sensors=settings.collector_max_sensors),
        keep=settings.collector_duplicate_policy,
    )


def make_options(settings: Settings, *, host: str | None = None, port: int | None = None) -> CollectorOptions:
    """Return what a collector of these settings does, on another broker if `host` and `port` name one."""
    has_spool = settings.collector_spool == "spool"
    return CollectorOptions(
        name=settings.collector_name,
        address=Address.from_settings(settings, host=host, port=port),
        topics=tuple(settings.collector_topics),
        shared_group=settings.collector_shared_group,
        receive_maximum=settings.collector_receive_maximum,
        version=settings.broker_mqtt_version,
        writer=writer_options(settings),
        spool_folder=settings.data_dir / "spool" / settings.collector_name if has_spool else None,
        spool_max_bytes=settings.collector_spool_max_mb << 20,
    )


def make_collector(settings: Settings, *, url: str, host: str | None = None, port: int | None = None) -> Collector:
    """Return a collector that is not running yet.

    Raises:
        BadTopicRule: the file of topic rules is wrong.
    """
    table = load_table(tenant=settings.tenant, user_file=settings.topic_rules)
    return Collector(url, make_options(settings, host=host, port=port), table)


def make_sparkplug(
    settings: Settings, *, url: str, host: str | None = None, port: int | None = None
) -> SparkplugCollector:
    """Return the Sparkplug host of these settings, not running yet."""
    table = load_table(tenant=settings.tenant, user_file=settings.topic_rules)
    options = make_options(settings, host=host, port=port)
    return SparkplugCollector(url, options, table, host_id=settings.collector_sparkplug_host)


async def collect(
    settings: Settings,
    *,
    url: str,
    host: str | None = None,
    port: int | None = None,
    stop: asyncio.Event,
    on_start: Callable[[Collector], None] = lambda _: None,
) -> Counters:
    """Collect until `stop` is set; store and acknowledge what has arrived, and return the accounts.

    Args:
        settings: policies, and the broker unless `host` and `port` name another, such as an embedded one.
        url: the database.
        host: of the broker.
        port: of the broker.
        stop: ends it.
        on_start: is given the collector, whose `is_connected` is set once it listens.
    """
    collector = make_collector(settings, url=url, host=host, port=port)
    on_start(collector)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(keep_house(settings, url=url, stop=stop), name="housekeeping")
            if settings.collector_sparkplug_host:
                sparkplug = make_sparkplug(settings, url=url, host=host, port=port)
                group.create_task(_stop_all(sparkplug, stop), name="sparkplug")
            if settings.collector_metrics_port:
                page = functools.partial(metrics_page, collector)
                group.create_task(serve(settings.collector_metrics_port, page, stop=stop), name="metrics")
            recorder = group.create_task(_stop_all(collector, stop), name="collector")
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None  # the others only ended because of it
    return recorder.result()


def metrics_page(collector: Collector) -> str:
    """Return the collector's figures in Prometheus' text format."""
    return render(collector, now_s=monotonic_s())


async def preflight(
    settings: Settings, *, host: str | None = None, port: int | None = None, probe: bool = False
) -> list[Finding]:
    """Return what the broker grants and says of itself, with a remedy where it cannot keep our promise."""
    options = make_options(settings, host=host, port=port)
    return await check_broker(
        options.address, name=options.name, filters=options.filters(), receive_maximum=options.receive_maximum,
        version=options.version, probe=probe,
    )  # fmt: skip


async def _stop_all(collector: Collector, stop: asyncio.Event) -> Counters:
    """Run a collector, and whatever ends it, let the others end in good order."""
    try:
        return await collector.run(stop)
    finally:
        stop.set()


class BulkWriter:
    """Stores readings that do not come from a broker, through the same writer and the same ledger.

    So detection sees them, rollups cover them, and storing them a second time changes nothing.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.stored = 0
        self.duplicates = 0
        self.collisions = 0

    def sensors(self, tenant: str, places: Sequence[tuple[str, str, str, str]]) -> list[int]:
        """Return the ids of sensors, registering those that are missing.

        Args:
            tenant: slug.
            places: site code, machine number, sensor name and unit of each.

        Raises:
            SensorRefused: a sensor may not be registered, or measures another quantity than `unit`.
        """
        wanted = [Wanted(tenant, (site, machine, sensor), unit or None) for site, machine, sensor, unit in places]
        found = self._writer.retrying(
            lambda: self._writer.catalogue.resolve(self._writer.store.conn, wanted, now_s=0.0)
        )
        ids = []
        for want in wanted:
            sensor = found[want]
            if isinstance(sensor, Refused):
                raise SensorRefused(place="/".join(want.path), why=sensor.detail)
            if want.unit and is_other_quantity(sensor, want.unit):
                why = f"it is in {sensor.unit}, not in {want.unit}; correct one of them, or give it another name"
                raise SensorRefused(place="/".join(want.path), why=why)
            ids.append(sensor.id)
        return ids

    def store(self, rows: ReadingArray, *, on_progress: Callable[[int], None] = lambda _: None) -> None:
        """Store readings, in batches of the ledger, in the order given.

        Args:
            rows: of `READING_DTYPE`; a value of NaN is a missing one. Pass them by time, so that detection may fold
                them as they come.
            on_progress: is told how many more are done.
        """
        assert rows.dtype == READING_DTYPE, rows.dtype
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            owners = np.zeros(len(some), dtype=np.int32)
            unique, owners, duplicates, collisions = sort_unique(some, owners)
            sealed = Sealed(
                messages=0, rows=unique, owners=owners, texts=[], waveforms=[], life=[], refusals=[],
                duplicates=duplicates, collisions=collisions, ignored_messages=0, ignored_readings=0, is_suspect=False,
            )  # fmt: skip
            outcome: Outcome = self._writer.persist_sealed(
                sealed, Messages([b""], [b""], set(), {}), received_us=now_us()
            )
            self.stored += outcome.stored
            self.duplicates += outcome.duplicates
            self.collisions += outcome.collisions
            on_progress(len(some))


@contextmanager
def bulk_writer(settings: Settings, *, url: str, name: str) -> Iterator[BulkWriter]:
    """Open a writer for history under a collector name of its own.

    Raises:
        LeaseTaken: another process writes under this name.
    """
    with _open_writer(settings, url=url, name=name) as writer:
        yield BulkWriter(writer)


@contextmanager
def _open_writer(settings: Settings, *, url: str, name: str) -> Iterator[Writer]:
    stopping = threading.Event()
    writer = Writer(url, name=name, options=writer_options(settings), wait=stopping.wait)
    writer.open()
    try:
        yield writer
    finally:
        writer.close()


def retry_rejected(
    settings: Settings,
    *,
    url: str,
    choice: Choice,
    is_trial: bool = False,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Retried:
    """Read refused messages again with the topic rules of today, store what can be stored now, and forget its messages.

    Raises:
        BadTopicRule: the file of topic rules is wrong.
        LeaseTaken: another process does the same at this moment.
    """
    table = load_table(tenant=settings.tenant, user_file=settings.topic_rules)
    with _open_writer(settings, url=url, name="rejected") as writer:
        return retry(writer, table, choice, is_trial=is_trial, on_progress=on_progress)
