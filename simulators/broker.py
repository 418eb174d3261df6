"""What the simulators know of a broker: its address, what is published, what may go wrong, and what a client must do.

Two clients keep the same promises: `simulators.paho_client` for everyday rates, `simulators.mqtt` for load.
`simulators.clients` chooses between them.
"""

import ssl
from abc import abstractmethod
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Protocol, Self

from fettle import clock
from fettle.errors import FettleError
from fettle.settings import Settings

WINDOW = 2000  # messages on the way at most, less where the broker's receive maximum is less


class BrokerUnreachable(FettleError):
    """No MQTT broker answers at {host}:{port} ({why}). Start one, or set FETTLE_BROKER_HOST and FETTLE_BROKER_PORT."""


class BrokerRefused(FettleError):
    """The broker at {host}:{port} refused the connection: {why}."""


class BrokerGone(FettleError):
    """The connection to the broker broke after {acknowledged} acknowledged messages ({why}); {unacknowledged} were on the way."""


class PublishRefused(FettleError):
    """The broker refused a message on topic {topic}: reason code 0x{reason:02x}. Check its access rules."""


class MessageTooLarge(FettleError):
    """A message on topic {topic} has {size} bytes; the broker takes at most {limit}."""


@dataclass(frozen=True, kw_only=True)
class BrokerAddress:
    """Where a broker listens and how to log in. `version` is "5", "3.1.1" or "auto": 5 with a fall-back."""

    host: str = "127.0.0.1"
    port: int = 1883
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    version: str = "auto"

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the broker of the settings; the loopback address where they name none."""
        tls = settings.broker_tls_ca is not None or settings.broker_tls_cert is not None
        return cls(
            host=settings.broker_host or "127.0.0.1",
            port=settings.broker_port or (8883 if tls else 1883),
            username=settings.broker_username,
            password=settings.broker_password.get_secret_value() if settings.broker_password else None,
            tls_ca=settings.broker_tls_ca,
            tls_cert=settings.broker_tls_cert,
            tls_key=settings.broker_tls_key,
            version=settings.broker_mqtt_version,
        )

    @property
    def tls(self) -> bool:
        return self.tls_ca is not None or self.tls_cert is not None


class Message(NamedTuple):
    """One message to publish."""

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    content_type: str = ""


class Publisher(Protocol):
    """A connection to a broker, used from one thread. Leaving it as a context manager disconnects in good order.

    Attributes:
        name: of the client, for people.
        version: 5 or 4 (3.1.1), what was agreed on.
        sent: messages handed over since the connection began.
        acknowledged: QoS 1 messages the broker has taken over.
    """

    name: str
    version: int
    sent: int
    acknowledged: int

    @abstractmethod
    def publish(self, message: Message) -> None:
        """Hand over one message; waits while the broker's window is full.

        Raises:
            BrokerGone: the connection broke.
            MessageTooLarge: the broker announced a smaller limit.
            PublishRefused: the broker refused an earlier message.
        """

    @abstractmethod
    def pump(self, wait_s: float) -> None:
        """Write and read what the socket takes; wait at most `wait_s` for something to do.

        Raises:
            BrokerGone: the connection broke.
            PublishRefused: the broker refused a message.
        """

    @abstractmethod
    def subscribe(self, topic_filter: str, *, qos: int = 1) -> None:
        """Subscribe and wait for the answer.

        Raises:
            BrokerRefused: the broker does not grant the subscription.
        """

    @abstractmethod
    def unacknowledged(self) -> list[Message]:
        """Return the QoS 1 messages on the way, oldest first."""

    @property
    @abstractmethod
    def in_flight(self) -> int:
        """QoS 1 messages published and not yet acknowledged."""

    @property
    @abstractmethod
    def unwritten(self) -> int:
        """What waits for the socket to take it, in a unit of the client's own; 0 is nothing."""

    @abstractmethod
    def close(self) -> None:
        """Write out what is left and disconnect; a broken connection is closed without complaint."""

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until everything is written and acknowledged.

        Raises:
            BrokerGone: the connection broke, or the broker stays silent for `timeout_s`.
            PublishRefused: the broker refused a message.
        """
        last, before = clock.monotonic_s(), (self.unwritten, self.in_flight)
        while any(before):
            self.pump(0.2)
            now = (self.unwritten, self.in_flight)
            if now != before:
                before, last = now, clock.monotonic_s()
            elif clock.monotonic_s() - last > timeout_s:
                raise self.gone(f"no acknowledgement for {timeout_s:g} s")

    def gone(self, why: str) -> BrokerGone:
        """Return the error that says how far it came."""
        return BrokerGone(acknowledged=self.acknowledged, unacknowledged=self.in_flight, why=why)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def tls_context(address: BrokerAddress) -> ssl.SSLContext:
    """Return the TLS settings of an address: its authority, or the system's, and its certificate where it has one."""
    context = ssl.create_default_context(cafile=str(address.tls_ca) if address.tls_ca else None)
    if address.tls_cert:
        context.load_cert_chain(str(address.tls_cert), str(address.tls_key) if address.tls_key else None)
    return context


def no_tls(address: BrokerAddress, error: OSError) -> BrokerRefused:
    """Return the error of a TLS connection that did not come about."""
    why = f"no TLS connection ({reason_of(error)}); check FETTLE_BROKER_TLS_CA, FETTLE_BROKER_TLS_CERT and FETTLE_BROKER_TLS_KEY"
    return BrokerRefused(host=address.host, port=address.port, why=why)


def reason_of(error: OSError) -> str:
    """Return what the system says about an error."""
    return error.strerror or str(error) or type(error).__name__


CONNECT_REASONS = {
    1: "it does not speak this MQTT version",
    0x84: "it does not speak this MQTT version",
    2: "client id refused",
    0x85: "client id refused",
    3: "server unavailable",
    0x88: "server unavailable",
    4: "wrong user name or password",
    0x86: "wrong user name or password",
    5: "not authorised: set FETTLE_BROKER_USERNAME and FETTLE_BROKER_PASSWORD",
    0x87: "not authorised: set FETTLE_BROKER_USERNAME and FETTLE_BROKER_PASSWORD",
}
