"""The collector's accounts. Every message, and every reading decoded from one, is in exactly one state.

    messages: received = done + rejected + ignored + in flight + spooled + returned
    readings: received = stored + duplicates + collisions + rejected + ignored + in flight + spooled + returned

`returned` are messages that were not stored before their connection, or the process, ended: they were not acknowledged,
and the broker delivers them again.
"""

import bisect
import itertools
from dataclasses import dataclass, field

from fettle.errors import FettleError
from ingest.batch import Batch
from ingest.store import Outcome


class Unbalanced(FettleError):
    """{what}: {received} received, {accounted} accounted for."""


@dataclass(slots=True)
class Account:
    """One of the two identities."""

    received: int = 0
    done: int = 0  # messages: stored as far as they go; readings: stored
    duplicates: int = 0
    collisions: int = 0
    rejected: int = 0
    ignored: int = 0
    in_flight: int = 0
    spooled: int = 0
    returned: int = 0

    @property
    def accounted(self) -> int:
        return (
            self.done + self.duplicates + self.collisions + self.rejected + self.ignored
            + self.in_flight + self.spooled + self.returned
        )  # fmt: skip

    def check(self, what: str) -> None:
        """Assert the identity.

        Raises:
            Unbalanced: something was lost or counted twice.
        """
        if self.received != self.accounted or min(self.in_flight, self.spooled, self.done) < 0:
            raise Unbalanced(what=what, received=self.received, accounted=self.accounted)


_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)


@dataclass(slots=True)
class Histogram:
    """Durations, counted by upper bound."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(_BOUNDS_S) + 1))
    total: float = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def add(self, seconds: float) -> None:
        self.counts[bisect.bisect_left(_BOUNDS_S, seconds)] += 1
        self.total += seconds

    def cumulative(self) -> list[tuple[str, int]]:
        """Return (bound, durations up to it); the last bound is +Inf."""
        bounds = [*(f"{bound:g}" for bound in _BOUNDS_S), "+Inf"]
        return list(zip(bounds, itertools.accumulate(self.counts), strict=True))


@dataclass(slots=True)
class Counters:
    """What a collector has done since it started."""

    messages: Account = field(default_factory=Account)
    readings: Account = field(default_factory=Account)
    batches: int = 0
    bytes_received: int = 0
    reconnects: int = 0
    sessions_lost: int = 0
    late: int = 0
    latency: Histogram = field(default_factory=Histogram)  # from the first message of a batch to its commit

    def book(self, batch: Batch, outcome: Outcome) -> None:
        """Enter a batch that is committed."""
        messages, readings = self.messages, self.readings
        self.batches += 1
        self.late += outcome.late
        messages.rejected += outcome.rejected_messages
        messages.ignored += batch.ignored_messages
        messages.done += batch.messages - outcome.rejected_messages - batch.ignored_messages
        readings.done += outcome.stored
        readings.duplicates += outcome.duplicates
        readings.collisions += outcome.collisions
        readings.rejected += outcome.rejected
        readings.ignored += outcome.ignored

    def check(self) -> None:
        """Assert both identities.

        Raises:
            Unbalanced: something was lost or counted twice.
        """
        self.messages.check("messages")
        self.readings.check("readings")
