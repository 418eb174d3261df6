"""A tenant's dispatch policy: the defaults, with what `tenant.policy["dispatch"]` sets otherwise."""

import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from typing import Any

from dispatch.model import OffShift, Policy
from fettle.errors import FettleError
from fettle.model import Priority, TicketType

TERMS = ("travel", "soon", "load", "skill")


class BadPolicy(FettleError):
    """The tenant's dispatch policy is wrong at {key}: {why}."""


def read_policy(given: Mapping[str, Any]) -> Policy:
    """Return the policy of a tenant.

    >>> read_policy({"weights": {"travel": 1, "load": 1}}).weights
    {'travel': 1.0, 'load': 1.0}

    Raises:
        BadPolicy: a key is unknown or its value cannot be.
    """
    known = {f.name for f in fields(Policy)}
    unknown = sorted(given.keys() - known)
    if unknown:
        raise BadPolicy(key=unknown[0], why=f"unknown; known are {', '.join(sorted(known))}")
    changes: dict[str, Any] = {}
    for key, value in given.items():
        read: Callable[[str, Any], Any] = _READERS.get(key, _positive)
        changes[key] = read(key, value)
    return replace(Policy(), **changes)


def _positive(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise BadPolicy(key=key, why=f"{value!r} is no positive number")
    return float(value)


def _whole(key: str, value: Any) -> int:
    number = _positive(key, value)
    if number != int(number):
        raise BadPolicy(key=key, why=f"{value!r} is no whole number")
    return int(number)


def _truth(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise BadPolicy(key=key, why="give true or false")
    return value


def _weights(key: str, value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping) or not value:
        raise BadPolicy(key=key, why="give a weight for at least one term")
    for term in value:
        if term not in TERMS:
            raise BadPolicy(key=f"{key}.{term}", why=f"unknown term; known are {', '.join(TERMS)}")
    return {term: _positive(f"{key}.{term}", weight) for term, weight in value.items()}


def _off_shift(key: str, value: Any) -> OffShift:
    if value not in set(OffShift):
        raise BadPolicy(key=key, why=f"give one of {', '.join(OffShift)}")
    return OffShift(value)


def _minutes_by_type(key: str, value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise BadPolicy(key=key, why="give minutes for each ticket type")
    return {**Policy().job_minutes, **{str(k): _positive(f"{key}.{k}", v) for k, v in value.items()}}


def _minutes_by_priority(key: str, value: Any) -> dict[Priority, float]:
    if not isinstance(value, Mapping) or not set(value) <= set(Priority):
        raise BadPolicy(key=key, why=f"give minutes for {', '.join(Priority)}")
    return {**Policy().offer_minutes, **{Priority(k): _positive(f"{key}.{k}", v) for k, v in value.items()}}


def _types(key: str, value: Any) -> tuple[TicketType, ...]:
    if not isinstance(value, list) or not set(value) <= set(TicketType):
        raise BadPolicy(key=key, why=f"give a list of {', '.join(TicketType)}")
    return tuple(TicketType(kind) for kind in value)


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "weights": _weights,
    "emergency_weights": _weights,
    "off_shift": _off_shift,
    "emergencies_off_shift": _truth,
    "region_is_hard": _truth,
    "job_minutes": _minutes_by_type,
    "offer_minutes": _minutes_by_priority,
    "auto_types": _types,
    "most_failures": _whole,
}
