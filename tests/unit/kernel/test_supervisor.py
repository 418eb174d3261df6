"""Restarting what crashes."""

import os
import signal
from types import SimpleNamespace

import pytest

from fettle import clock
from fettle.supervisor import Supervisor, _Child, stop_on_signals


@pytest.mark.parametrize("restarts", [0, 5, 2000])
def test_a_child_that_crashes_for_ever_is_started_again_for_ever(restarts):
    """At one start in thirty seconds, two thousand are a night and a morning."""
    now = clock.monotonic_s()
    child = _Child("collect", ("collect",), {}, SimpleNamespace(poll=lambda: 1), now, restarts=restarts)
    supervisor = Supervisor()
    supervisor._children.append(child)
    supervisor.check()
    assert now < child.restart_at < now + 31


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_asks_to_stop(sent):
    with stop_on_signals() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), sent)
        assert stop.wait(5)


def test_under_nohup_a_closed_terminal_stops_nothing():
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.wait(0.05)
    finally:
        signal.signal(signal.SIGHUP, former)
