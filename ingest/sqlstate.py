"""What to do about an error of the database, decided by its SQLSTATE alone.

Constraint names are those of partitions and chunks, not of `reading`, so they are never matched on; whether there is
one at all tells a CHECK from a missing partition.
"""

from enum import StrEnum


class Action(StrEnum):
    """What the writer does next with the batch that failed. No action ever drops it."""

    RECONNECT = "reconnect"  # the server went away: connect again, find out about the COMMIT, retry
    RETRY = "retry"  # a conflict with somebody else: back off, retry, in halves after some times
    HOLD = "hold"  # out of disk, memory or connections: alarm, retry slowly
    CONFLICT = "conflict"  # a key exists: the conflict path
    LATE = "late"  # too many compressed rows to touch: the late path
    PARTITION = "partition"  # no partition for a row: make it, retry
    POISON = "poison"  # one row is at fault: find it, refuse it, store the others
    RELOAD = "reload"  # the catalogue changed underneath: read it again, retry once, then poison
    HALT = "halt"  # every row would fail: keep everything, acknowledge nothing, alarm
    UNKNOWN = "unknown"  # retry some times, then halt


_RECONNECT = {"57P01", "57P02", "57P03", "57P05", "25006"}
_RETRY = {"40001", "40P01", "55P03", "57014"}
_HALT = {"22P03", "22P04", "21000", "XX000", "XX001", "XX002", "3D000", "3F000", "0A000"}


def classify(sqlstate: str | None, *, constraint: str | None = None) -> Action:
    """Return the action for an error; None is a connection that broke without a word.

    >>> classify("23514", constraint="reading_check"), classify("23514")
    (<Action.POISON: 'poison'>, <Action.PARTITION: 'partition'>)
    """
    if sqlstate is None or sqlstate in _RECONNECT or sqlstate.startswith("08"):
        return Action.RECONNECT
    if sqlstate in _RETRY:
        return Action.RETRY
    if sqlstate == "53400":  # not transient, although of class 53
        return Action.LATE
    if sqlstate in _HALT:
        return Action.HALT
    match sqlstate:
        case "23505":
            return Action.CONFLICT
        case "23514":
            return Action.POISON if constraint else Action.PARTITION
        case "23502" | "23503":
            return Action.RELOAD
    match sqlstate[:2]:
        case "53" | "58":
            return Action.HOLD
        case "22":
            return Action.POISON
        case "42" | "28":
            return Action.HALT
    return Action.UNKNOWN
