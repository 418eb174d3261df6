"""Which client publishes: paho where it keeps up, our own batch publisher where it does not."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

from fettle.errors import FettleError
from simulators.broker import BrokerAddress, BrokerGone, BrokerRefused, Message, Publisher
from simulators.mqtt import BatchPublisher

_MQTT_5_WITHIN_S = 3.0  # some brokers fall silent on a CONNECT they do not understand
CLIENTS = ("auto", "paho", "batch")
PAHO_KEEPS_UP = 2000.0
"""Messages a second that paho is trusted with; benchmarks/simulate.py measures what it manages."""


class ClientUnknown(FettleError):
    """There is no MQTT client {name!r}; choose one of {names}."""


@dataclass(frozen=True)
class ClientChoice:
    """A client and why it was taken; `because` is empty for the ordinary one."""

    name: Literal["paho", "batch"]
    because: str = ""


def choose_client(asked: str = "auto", *, rate: float, load: bool = False) -> ClientChoice:
    """Return the client that fits.

    Args:
        asked: "paho" or "batch" take that one; "auto" chooses.
        rate: messages a second to expect; infinite is as fast as the broker takes them.
        load: the rate is what matters, so the client must not be what is measured.

    Raises:
        ClientUnknown: not one of `CLIENTS`.
    """
    match asked:
        case "batch":
            return ClientChoice("batch", "it was asked for")
        case "paho":
            return ClientChoice("paho", "it was asked for" if load or rate > PAHO_KEEPS_UP else "")
        case "auto" if load:
            return ClientChoice("batch", "load is to be limited by the broker, not by the client")
        case "auto" if math.isinf(rate):
            return ClientChoice("batch", "messages go out as fast as the broker takes them")
        case "auto" if rate > PAHO_KEEPS_UP:
            return ClientChoice(
                "batch", f"{rate:,.0f} messages/s are expected and paho is used up to {PAHO_KEEPS_UP:,.0f}"
            )
        case "auto":
            return ClientChoice("paho")
        case _:
            raise ClientUnknown(name=asked, names=", ".join(CLIENTS))


def open_publisher(
    choice: ClientChoice,
    address: BrokerAddress,
    *,
    client_id: str,
    will: Message | None = None,
    on_message: Callable[[str, bytes], None] | None = None,
) -> Publisher:
    """Connect with the chosen client; where the address leaves the version open, with MQTT 5 and then 3.1.1.

    Raises:
        BrokerUnreachable, BrokerRefused, BrokerGone: no connection.
    """
    from simulators.paho_client import PahoPublisher  # an import that files and galleries do without

    build = PahoPublisher if choice.name == "paho" else BatchPublisher
    make = partial(build, address, client_id=client_id, will=will, on_message=on_message)
    if address.version != "auto":
        return make(version=5 if address.version == "5" else 4)
    try:
        return make(version=5, timeout_s=_MQTT_5_WITHIN_S)
    except (BrokerRefused, BrokerGone):
        return make(version=4)


def describe(publisher: Publisher, choice: ClientChoice) -> str:
    """Return which client publishes and why, for people."""
    because = f", because {choice.because}" if choice.because else ""
    return f"{publisher.name}, MQTT {'5' if publisher.version == 5 else '3.1.1'}{because}"
