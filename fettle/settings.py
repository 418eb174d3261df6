"""Every setting Fettle has. Built once by the command line and passed down; nothing reads the environment later.

Each field can be given as an environment variable `FETTLE_` + its name in capitals, or as a line of a file `.env`.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings with their defaults; the description of each field is its documentation."""

    model_config = SettingsConfigDict(env_prefix="FETTLE_", env_file=".env", env_file_encoding="utf-8", extra="ignore")

    data_dir: Path = Field(Path(".fettle"), description="Folder of the embedded database and broker, models and spool.")
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL, as the owner of the schema: postgresql://user:password@host/db. Empty: embedded."
    )
    storage: Literal["auto", "plain", "timescale"] = Field(
        "auto", description="Where readings live: auto takes TimescaleDB where the server offers its full build."
    )
    tenant: str = Field(
        "default",
        pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$",
        description="Slug of the tenant that migrate makes and simulators publish for: small letters, digits, - and _.",
    )

    broker_host: str | None = Field(None, description="Host of the MQTT broker. Empty: an embedded broker.")
    broker_port: int = Field(
        0, description="Port of the broker; 0 takes 1883, 8883 with TLS, or a free one if embedded."
    )
    broker_username: str | None = Field(None, description="User name at the broker.")
    broker_password: SecretStr | None = Field(None, description="Password at the broker.")
    broker_tls_ca: Path | None = Field(None, description="CA certificate of the broker; setting it switches TLS on.")
    broker_tls_cert: Path | None = Field(None, description="Client certificate, for mutual TLS.")
    broker_tls_key: Path | None = Field(None, description="Key of the client certificate.")
    broker_mqtt_version: Literal["5", "3.1.1", "auto"] = Field(
        "auto", description="Protocol version; auto tries 5 and falls back to 3.1.1 with a warning."
    )

    collector_name: str = Field(
        "fettle-collect-1", description="MQTT client id of this collector: stable, one process each."
    )
    collector_topics: list[str] = Field(["fettle/#"], description="Topic filters to subscribe to, as a JSON list.")
    collector_shared_group: str = Field("", description="Shared subscription group; set it to run several collectors.")
    collector_receive_maximum: int = Field(10_000, ge=1, le=65_535, description="Unacknowledged messages in flight.")
    collector_unknown: Literal["register", "reject"] = Field(
        "register", description="What to do with an unknown machine or sensor: register it, or reject the message."
    )
    collector_max_sensors: int = Field(
        200_000, ge=1, description="Most sensors one tenant may have registered by topics."
    )
    collector_future_skew_s: float = Field(300.0, gt=0, description="Seconds a time stamp may lie in the future.")
    collector_future_policy: Literal["reject", "clamp"] = Field(
        "reject",
        description="A time stamp further in the future is rejected, or set to the time of receipt and flagged.",
    )
    collector_spool: Literal["hold", "spool"] = Field(
        "hold", description="While the database is away: hold messages at the broker, or spool them to disk here."
    )
    collector_spool_max_mb: int = Field(4096, ge=64, description="Most disk the spool may take.")
    collector_duplicate_policy: Literal["first", "last"] = Field(
        "first", description="Same sensor, same time, other value: keep the first or the last. Counted as collision."
    )
    collector_sparkplug_host: str = Field(
        "", description="Host id under which Sparkplug B edge nodes know this collector. Empty: no Sparkplug."
    )
    collector_metrics_port: int = Field(
        0, ge=0, le=65_535, description="Loopback port on which the collector serves Prometheus metrics; 0: none."
    )
    topic_rules: Path | None = Field(None, description="TOML file of topic rules beside the shipped ones.")

    ledger_hours: float = Field(
        48.0, gt=0, description="Hours that the bytes of stored batches are kept for detection."
    )
    reading_days: int = Field(
        0,
        ge=0,
        description="Days that raw readings are kept; older ones are refused. 0 keeps all, and takes history of any age.",
    )
    compress_after_days: int = Field(8, ge=1, description="Days after which readings are compressed (TimescaleDB).")
    rollup_days: int = Field(3650, ge=1, description="Days that rollups are kept.")
    rejected_days: int = Field(30, ge=1, description="Days that rejected messages are kept.")

    false_tickets_per_machine_day: float = Field(
        0.01, gt=0, le=1, description="The rate of false tickets to calibrate to."
    )
    detect_shard: str = Field(
        "0/1", pattern=r"^\d+/\d+$", description="Which part of the fleet this process watches: k/n."
    )

    api_host: str = Field("127.0.0.1", description="Address the API and the board listen on.")
    api_port: int = Field(8000, ge=0, le=65_535, description="Port of the API and the board; 0 takes a free one.")
    session_hours: float = Field(12.0, gt=0, description="Hours a login lasts.")

    grafana_url: str | None = Field(None, description="Grafana to provision and to link to.")
    grafana_token: SecretStr | None = Field(None, description="Service account token for Grafana.")
    grafana_db_host: str | None = Field(
        None, description="host:port at which Grafana reaches the database. Empty: the one of FETTLE_DATABASE_URL."
    )
    grafana_db_password: SecretStr | None = Field(
        None, description="Password of the tenant's read-only login that Grafana uses. Empty: one is made up."
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least severe event to log.")
    log_format: Literal["text", "json"] = Field("text", description="key=value lines, or one JSON object a line.")
