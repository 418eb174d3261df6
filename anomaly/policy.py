"""Turns scores into alarms, and the alarms of one machine into one finding (ISA-18.2; ISO 13374 block SD to AG).

    normal -> pending -> raised -> clearing -> normal        per alarm, with on-delay, off-delay and dead band

Delays count steps that carry data, so a pause in the data pauses them.
"""

import numpy as np

from anomaly.columns import NEVER, BoolArray, IntArray
from anomaly.state import Alarms


def advance_alarms(
    alarms: Alarms,
    rows: IntArray,
    *,
    at_us: IntArray,
    is_over: BoolArray,
    is_under: BoolArray,
    on_count: IntArray | int,
    off_count: IntArray | int,
    on_us: IntArray | int = 0,
) -> tuple[IntArray, IntArray]:
    """Move the alarms `rows` one sample on; return the positions in `rows` that were raised and that were cleared.

    `is_over` means above the alarm level, `is_under` below the clear level; between the two nothing changes but the
    counts start anew. An alarm is raised after `on_count` samples in a row over, spanning at least `on_us`; it is
    cleared after `off_count` samples in a row under. It is never raised twice without being cleared.
    """
    active = alarms.active[rows]
    started = is_over & (alarms.over[rows] == 0) & ~active
    since = np.where(started, at_us, alarms.since[rows])
    over = np.where(is_over, alarms.over[rows] + 1, 0)
    under = np.where(is_under, alarms.under[rows] + 1, 0)
    raised = ~active & is_over & (over >= on_count) & (at_us - since >= on_us)
    cleared = active & (under >= off_count)
    since = np.where(cleared | (~active & ~is_over), NEVER, since)
    alarms.since[rows] = since
    alarms.over[rows] = over
    alarms.under[rows] = np.where(raised, 0, under)
    alarms.active[rows] = (active | raised) & ~cleared
    alarms.raised_at[rows] = np.where(raised, at_us, alarms.raised_at[rows])
    return np.flatnonzero(raised), np.flatnonzero(cleared)
