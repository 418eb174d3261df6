"""What `fettle check` looks at. Each function returns lines; a red one carries its remedy."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Literal

import aiomqtt
import psycopg

from fettle import running
from fettle.db import BadDatabaseUrl, DatabaseRole, NoDatabase, SyncConn, connect_sync, describe
from fettle.migrate import UnsafeTimescale, pending, probe_storage
from fettle.settings import Settings

_SYS_WAIT_S = 3.0
_BEHIND_S = 60  # what detection takes to look at a batch is far less


@dataclass(frozen=True)
class Diagnosis:
    """One line: what was looked at, how it is, and what to do where it is not well."""

    part: str
    colour: Literal["green", "yellow", "red"]
    text: str
    remedy: str = ""


def diagnose_settings(settings: Settings) -> list[Diagnosis]:
    """Look for settings that contradict each other. Wrong values were refused before we came here."""
    found = []
    if (settings.broker_tls_cert is None) != (settings.broker_tls_key is None):
        found.append(
            Diagnosis(
                "settings",
                "red",
                "a client certificate and its key go together",
                "set both FETTLE_BROKER_TLS_CERT and FETTLE_BROKER_TLS_KEY",
            )
        )
    for name in ("broker_tls_ca", "broker_tls_cert", "broker_tls_key", "topic_rules"):
        path = getattr(settings, name)
        if path is not None and not path.is_file():
            found.append(Diagnosis("settings", "red", f"{path} is not a file", f"correct FETTLE_{name.upper()}"))
    if settings.broker_password is not None and settings.broker_username is None:
        found.append(
            Diagnosis("settings", "red", "a broker password without a user name", "set FETTLE_BROKER_USERNAME")
        )
    if 0 < settings.reading_days <= settings.compress_after_days:
        found.append(
            Diagnosis(
                "settings",
                "yellow",
                "readings are dropped before they are compressed",
                "make FETTLE_COMPRESS_AFTER_DAYS less than FETTLE_READING_DAYS",
            )
        )
    if settings.collector_spool == "spool":
        found.append(
            Diagnosis(
                "settings",
                "yellow",
                "the spool is on: a reading is acknowledged when it is on this disk, before it is in the database",
            )
        )
    return found or [Diagnosis("settings", "green", "consistent")]


def diagnose_database(settings: Settings) -> list[Diagnosis]:
    """Reach the database; say its version and where readings live."""
    if settings.database_url is None:
        return [
            Diagnosis("database", "yellow", f"embedded, kept in {settings.data_dir}; it runs only inside `fettle up` and `fettle demo`",
                      "set FETTLE_DATABASE_URL to use a server of your own")
        ]  # fmt: skip
    url = settings.database_url.get_secret_value()
    try:
        with connect_sync(url, role=DatabaseRole.OWNER, name="fettle-check") as conn:
            version = conn.info.server_version // 10_000
            if version < 15:
                return [
                    Diagnosis(
                        "database",
                        "red",
                        f"PostgreSQL {version} at {describe(url)}",
                        "Fettle needs PostgreSQL 15 or later",
                    )
                ]
            extension = conn.execute("SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
            if extension:
                readings = f"readings in TimescaleDB {extension[0]}"
            else:
                storage, reason = probe_storage(
                    conn, wanted=settings.storage if settings.storage != "timescale" else "auto"
                )
                readings = f"readings in {'plain tables' if storage == 'plain' else 'TimescaleDB'} ({reason})"
            return [Diagnosis("database", "green", f"PostgreSQL {version} at {describe(url)}, {readings}")]
    except NoDatabase as error:
        return [
            Diagnosis("database", "red", str(error.data["why"]), "is the server up, and FETTLE_DATABASE_URL right?")
        ]
    except BadDatabaseUrl as error:
        return [Diagnosis("database", "red", *str(error).split(". ", 1))]
    except UnsafeTimescale as error:
        return [Diagnosis("database", "red", str(error), "upgrade TimescaleDB to 2.18.1 or later")]


def diagnose_migrations(settings: Settings) -> list[Diagnosis]:
    """Say which migrations the database lacks."""
    if settings.database_url is None:
        return [Diagnosis("migrations", "green", "applied by `fettle up` and `fettle demo` when they start")]
    try:
        with connect_sync(
            settings.database_url.get_secret_value(), role=DatabaseRole.OWNER, name="fettle-check"
        ) as conn:
            missing = pending(conn)
    except (NoDatabase, BadDatabaseUrl):
        return [
            Diagnosis(
                "migrations", "red", "unknown, since the database does not answer", "see the line on the database"
            )
        ]
    if missing:
        return [Diagnosis("migrations", "red", f"{len(missing)} pending: {', '.join(missing)}", "run: fettle migrate")]
    return [Diagnosis("migrations", "green", "none pending")]


def diagnose_detection(settings: Settings) -> list[Diagnosis]:
    """Say how far detection and dispatch are behind what is stored."""
    if settings.database_url is None:
        return [Diagnosis("detection", "green", "runs inside `fettle up` and `fettle demo`")]
    try:
        with connect_sync(
            settings.database_url.get_secret_value(), role=DatabaseRole.WORKER, name="fettle-check"
        ) as conn:
            batches = conn.execute(_BATCHES_BEHIND).fetchone()
            waiting = _count_waiting(conn)
    except (NoDatabase, BadDatabaseUrl):
        return [
            Diagnosis("detection", "red", "unknown, since the database does not answer", "see the line on the database")
        ]
    except psycopg.errors.UndefinedTable:
        return [Diagnosis("detection", "red", "unknown, since the schema is behind", "run: fettle migrate")]
    behind, for_s = (int(batches[0]), int(batches[1])) if batches else (0, 0)
    if for_s > _BEHIND_S or waiting:
        return [
            Diagnosis(
                "detection",
                "yellow",
                f"{behind} batches, the oldest {for_s} s old, and {waiting} findings behind",
                "is `fettle detect` running? It may be catching up",
            )
        ]
    return [Diagnosis("detection", "green", "caught up with what is stored")]


_BATCHES_BEHIND = """
    SELECT count(*), coalesce(extract(epoch FROM clock_timestamp() - min(committed_at)), 0)
    FROM batch
    WHERE payload IS NOT NULL
        AND number > coalesce(
            (SELECT min((positions ->> batch.collector_id::text)::bigint) FROM detector_state), 0
        )
"""


def _count_waiting(conn: SyncConn) -> int:
    """Return how many findings of all tenants have not been handed on."""
    waiting = 0
    with conn.transaction():
        for (tenant_id,) in conn.execute("SELECT id FROM tenant").fetchall():
            conn.execute("SELECT set_config('fettle.tenant', %(tenant)s, true)", {"tenant": str(tenant_id)})
            row = conn.execute("SELECT count(*) FROM finding WHERE revision > announced_revision").fetchone()
            waiting += int(row[0]) if row else 0
    return waiting


def diagnose_broker(settings: Settings) -> list[Diagnosis]:
    """Reach the broker with the collector's account, and look for limits that would lose data while we are away."""
    if settings.broker_host is None:
        return [
            Diagnosis(
                "broker",
                "yellow",
                "embedded; it runs only inside `fettle up` and `fettle demo`",
                "set FETTLE_BROKER_HOST to use a broker of your own",
            )
        ]
    where = f"{settings.broker_host}:{settings.broker_port or (8883 if settings.broker_tls_ca else 1883)}"
    try:
        facts = asyncio.run(_broker_facts(settings))
    except (aiomqtt.MqttError, OSError, TimeoutError) as error:
        return [
            Diagnosis(
                "broker",
                "red",
                f"{where} does not answer: {error}",
                "is it up, and are FETTLE_BROKER_HOST, _PORT, _USERNAME, _PASSWORD and the TLS files right?",
            )
        ]
    here = running.find(settings)
    if here is not None and here.broker_kind != "given" and settings.broker_port == here.broker_port:
        return [Diagnosis("broker", "green", f"{where} answers, the embedded {here.broker_kind}")]
    version = facts.get("$SYS/broker/version", "of unknown make")
    found = [Diagnosis("broker", "green", f"{where} answers, {version}")]
    dropped = facts.get("$SYS/broker/publish/messages/dropped", "0")
    if dropped.isdigit() and int(dropped) > 0:
        found.append(
            Diagnosis("broker", "yellow", f"it has dropped {dropped} messages since its start",
                      "in mosquitto.conf: max_queued_messages 0, and max_queued_bytes as large as an outage needs (docker/mosquitto.conf is an example)")
        )  # fmt: skip
    if "mosquitto" in version:
        found.append(
            Diagnosis("broker", "yellow", "Mosquitto's defaults keep only 1000 messages for a subscriber that is away, and its limits cannot be read from here",
                      "set max_queued_messages 0, max_queued_bytes, persistence true and autosave_interval 30; `fettle check --probe` measures it")
        )  # fmt: skip
    return found


@asynccontextmanager
async def _client(settings: Settings, identifier: str, **more: object) -> AsyncIterator[aiomqtt.Client]:
    context = None
    if settings.broker_tls_ca is not None:
        context = ssl.create_default_context(cafile=str(settings.broker_tls_ca))
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if settings.broker_tls_cert is not None:
            context.load_cert_chain(settings.broker_tls_cert, settings.broker_tls_key)
    password = settings.broker_password.get_secret_value() if settings.broker_password else None
    async with aiomqtt.Client(
        settings.broker_host or "127.0.0.1",
        settings.broker_port or (8883 if context else 1883),
        username=settings.broker_username,
        password=password,
        identifier=identifier,
        tls_context=context,
        timeout=5,
        **more,  # type: ignore[arg-type]
    ) as client:
        yield client


async def _broker_facts(settings: Settings) -> dict[str, str]:
    """Return what the broker says of itself under $SYS within some seconds; nothing where it has no such topics."""
    facts: dict[str, str] = {}
    async with _client(settings, f"{settings.collector_name}-check") as client:
        for topic in ("$SYS/broker/version", "$SYS/broker/publish/messages/dropped"):
            await client.subscribe(topic)
        try:
            async with asyncio.timeout(_SYS_WAIT_S):
                async for message in client.messages:
                    if isinstance(message.payload, bytes):
                        facts[str(message.topic)] = message.payload.decode(errors="replace")
                    if len(facts) == 2:
                        break
        except TimeoutError:
            pass
    return facts


def probe_queue(settings: Settings, *, messages: int = 1100) -> list[Diagnosis]:
    """Publish to an offline probe session and count what comes back: the only way to see the broker's queue limit."""
    try:
        kept = asyncio.run(_count_kept(settings, messages))
    except (aiomqtt.MqttError, OSError, TimeoutError) as error:
        return [Diagnosis("broker queue", "red", f"the probe failed: {error}", "see the line on the broker")]
    if kept < messages:
        return [Diagnosis("broker queue", "red", f"of {messages} messages for an absent subscriber, {kept} were kept",
                          "in mosquitto.conf: max_queued_messages 0 and a max_queued_bytes that an outage needs")]  # fmt: skip
    return [Diagnosis("broker queue", "green", f"keeps at least {messages} messages for an absent subscriber")]


async def _count_kept(settings: Settings, messages: int) -> int:
    name, topic = f"{settings.collector_name}-probe", f"fettle-probe/{settings.collector_name}"
    async with _client(settings, name, clean_session=True):
        pass
    async with _client(settings, name, clean_session=False) as away:
        await away.subscribe(topic, qos=1)
    async with _client(settings, f"{name}-sender") as sender:
        for number in range(messages):
            await sender.publish(topic, str(number).encode(), qos=1)
    kept = 0
    async with _client(settings, name, clean_session=False) as back:
        try:
            while kept < messages:
                async with asyncio.timeout(2):
                    await anext(aiter(back.messages))
                kept += 1
        except TimeoutError:
            pass
        await back.unsubscribe(topic)
    async with _client(settings, name, clean_session=True):
        pass
    return kept


def diagnose_grafana(settings: Settings) -> list[Diagnosis]:
    """Reach Grafana, if one is configured."""
    if settings.grafana_url is None:
        return [Diagnosis("grafana", "green", "not configured; the built-in board shows the same panels")]
    from grafana_client.api import GrafanaApi
    from grafana_client.client import GrafanaClientError

    token = settings.grafana_token.get_secret_value() if settings.grafana_token else None
    try:
        from grafana_client.client import TokenAuth

        api = GrafanaApi.from_url(url=settings.grafana_url, credential=TokenAuth(token) if token else None, timeout=5)
        health = api.health.check()
    except (GrafanaClientError, OSError) as error:
        return [
            Diagnosis(
                "grafana",
                "red",
                f"{settings.grafana_url} does not answer: {error}",
                "is it up, and are FETTLE_GRAFANA_URL and FETTLE_GRAFANA_TOKEN right?",
            )
        ]
    return [
        Diagnosis("grafana", "green", f"{settings.grafana_url} answers, version {health.get('version', 'unknown')}")
    ]
