"""Restarting what crashes."""

from types import SimpleNamespace

import pytest

from fettle import clock
from fettle.supervisor import Supervisor, _Child


@pytest.mark.parametrize("restarts", [0, 5, 2000])
def test_a_child_that_crashes_for_ever_is_started_again_for_ever(restarts):
    """At one start in thirty seconds, two thousand are a night and a morning."""
    now = clock.monotonic_s()
    child = _Child("collect", ("collect",), {}, SimpleNamespace(poll=lambda: 1), now, restarts=restarts)
    supervisor = Supervisor()
    supervisor._children.append(child)
    supervisor.check()
    assert now < child.restart_at < now + 31
