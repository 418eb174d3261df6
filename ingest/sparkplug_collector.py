"""The Sparkplug B host application: a second connection, beside the collector's own, for `spBv1.0/#`.

Sparkplug's data is QoS 0, so no acknowledgement can hold it back. What keeps it safe is the host's STATE: edge nodes that
know us as their primary host store their data while we are offline, and send it when we are back. So we are online exactly
while we can persist: when the database goes away we publish a death with a fresh time and leave, and come back with a new
birth when it is back.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace

from fettle import logs
from fettle.clock import now_us
from fettle.db import load_queries
from ingest.catalogue import Catalogue
from ingest.collector import Collector
from ingest.counters import Counters
from ingest.decode import BadPayload, Decoded
from ingest.decode.sparkplug import NAMESPACE, Command, Host
from ingest.decode.sparkplug_state import HostState
from ingest.frames import Frames
from ingest.intake import Intake
from ingest.options import CollectorOptions
from ingest.packets import Connect, Will
from ingest.session import Link
from ingest.topics import Route, Table
from ingest.writer import State

log = logs.get("ingest")
queries = load_queries("ingest")
_TICK_S = 0.25
_HEALTH_EVERY_S = 5.0


class SparkplugIntake(Intake):
    """An intake whose messages go through the state of their edge nodes."""

    def __init__(
        self, table: Table, catalogue: Catalogue, *, host: Host, on_state: Callable[[str, bytes], None]
    ) -> None:
        super().__init__(table, catalogue)
        self._host = host
        self._on_state = on_state

    def _decode(self, route: Route, topic: bytes, payload: bytes) -> Decoded:
        name = topic.decode()
        if name.startswith(f"{NAMESPACE}/STATE/"):
            self._on_state(name, payload)
        return self._host.receive(route.context, name, payload, self._tick)


class SparkplugCollector(Collector):
    """A collector of the namespace `spBv1.0`. Never shared and never spooled: edge nodes keep what we cannot store."""

    def __init__(self, url: str, options: CollectorOptions, table: Table, *, host_id: str) -> None:
        self.host = Host()
        self.host_id = host_id
        self._table = table
        self._state = HostState(host_id, connect_us=now_us())
        self._is_restored = False
        super().__init__(
            url,
            replace(
                options,
                name=f"{options.name}-sparkplug",
                topics=(f"{NAMESPACE}/#",),
                shared_group="",
                spool_folder=None,
            ),
            table,
        )

    def _make_intake(self, table: Table) -> Intake:
        return SparkplugIntake(table, self.writer.catalogue, host=self.host, on_state=self._answer_state)

    async def run(self, stop: asyncio.Event) -> Counters:
        """Be the host until `stop` is set; raises as `Collector.run` does."""
        tending = asyncio.create_task(self._tend(), name="sparkplug-host")
        try:
            return await super().run(stop)
        finally:
            tending.cancel()
            await asyncio.gather(tending, return_exceptions=True)

    # the connection

    def _ask(self) -> Connect:
        self._state = HostState(self.host_id, connect_us=now_us())
        will = self._state.will()
        return replace(super()._ask(), is_clean=True, will=Will(topic=will.topic, payload=will.payload))

    def _note_session(self, link: Link) -> None:
        """Every session is new: the standard wants it so."""

    async def _may_connect(self) -> None:
        if not self._is_restored:
            await self._restore()
            self._is_restored = True
        while self.writer.status.state is not State.WRITING:  # noqa: ASYNC110 -- another thread's state
            await asyncio.sleep(_TICK_S)

    async def _greet(self, link: Link) -> None:
        birth = self._state.birth()
        await link.publish(birth.topic, birth.payload, is_retained=True)
        log.info("sparkplug.online", host=self.host_id)

    def _say_goodbye(self, link: Link) -> None:
        # Its acknowledgement may stand behind data that we no longer read. DISCONNECT follows it on the same connection,
        # and where that breaks before, the will says the same.
        death = self._state.death(now_us=now_us())
        link.send_message(death.topic, death.payload, is_retained=True, is_assured=True)
        log.info("sparkplug.offline", host=self.host_id)

    def _answer_state(self, topic: str, payload: bytes) -> None:
        answer = self._state.answer(topic, payload)
        if answer is not None and self._link is not None:
            self._publish_state(self._link, answer)

    @staticmethod
    def _publish_state(link: Link, command: Command) -> None:
        task = asyncio.get_running_loop().create_task(
            link.publish(command.topic, command.payload, is_retained=True), name="sparkplug-state"
        )
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    def own_figures(self) -> list[tuple[str, str, float]]:
        counted = self.host.counters
        return [
            ("sparkplug_gaps_total", "Sequence gaps that outlasted the reorder time.", counted.gaps),
            ("rebirths_total", "Rebirths asked for.", counted.rebirths),
        ]

    # messages

    def _take(self, link: Link, frames: Frames, nbytes: int) -> None:
        super()._take(link, frames, nbytes)
        changed = self.host.take_changed()
        if changed:
            self.desk.jobs.put(lambda: self.writer.retrying(lambda: self._keep(changed)))

    def _keep(self, changed: dict[tuple[str, str, str], bytes]) -> None:
        """Keep the births of edge nodes, in the writer thread."""
        catalogue, conn = self.writer.catalogue, self.writer.store.conn
        for (tenant, group, edge), births in changed.items():
            tenant_id = catalogue.tenant_id(conn, tenant)
            if tenant_id is not None:
                conn.execute(
                    queries.keep_births, {"tenant_id": tenant_id, "group": group, "edge": edge, "births": births}
                )

    async def _restore(self) -> None:
        """Take back what edge nodes said at their births, before the first message comes."""
        done: asyncio.Future[list[tuple[str, str, bytes]]] = asyncio.get_running_loop().create_future()

        def load() -> None:
            rows = self.writer.retrying(lambda: self.writer.store.conn.execute(queries.load_births).fetchall())
            self._tell(done.set_result, [(group, edge, bytes(births)) for group, edge, births in rows])

        self.desk.jobs.put(load)
        for group, edge, births in await done:
            route = self._table.route(f"{NAMESPACE}/{group}/NDATA/{edge}")
            if route is None:
                continue
            try:
                self.host.restore(route.context, (route.tenant, group, edge), births)
            except BadPayload as error:
                log.warning("sparkplug.births_unreadable", group=group, edge=edge, why=str(error))

    async def _tend(self) -> None:
        """Ask for rebirths when they are due, and leave while nothing can be stored."""
        ticks = 0
        while True:
            await asyncio.sleep(_TICK_S)
            ticks += 1
            link = self._link
            if link is None or link.lost.done():
                continue
            for command in self.host.due(now_us()):
                link.send_message(command.topic, command.payload)
            if self.writer.status.state in {State.HOLDING, State.HALTED}:
                log.warning("sparkplug.cannot_store", why=self.writer.status.reason)
                await self._disconnect()
            elif not self._under_way and ticks * _TICK_S % _HEALTH_EVERY_S == 0:
                self.desk.jobs.put(lambda: self.writer.retrying(self.writer.ask))
