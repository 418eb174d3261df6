"""Runs the verbs of one machine as child processes: starts them, restarts what crashes, stops all of them together.

with stop_on_signals() as stop, Supervisor() as children:
    children.start("collect", ["collect"], environment)
    children.watch(stop)
"""

import functools
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from fettle import clock, logs
from fettle.embedded import die_with_parent

_GRACE_S = 8.0
_log = logs.get("supervisor")


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C, SIGTERM and a closed terminal set; the former handlers come back afterwards."""
    stop = threading.Event()
    signals = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # nohup
        signals.append(signal.SIGHUP)
    former = {sig: signal.signal(sig, lambda *_: stop.set()) for sig in signals}
    try:
        yield stop
    finally:
        for sig, handler in former.items():
            signal.signal(sig, handler)


@dataclass
class _Child:
    name: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    process: "subprocess.Popen[bytes]"
    started_at: float
    restarts: int = 0
    restart_at: float | None = None
    may_end: bool = False
    log_path: str | None = field(default=None)


class Supervisor:
    """A set of `fettle VERB` children. Leaving the context stops them all."""

    def __init__(self) -> None:
        self._children: list[_Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        may_end: bool = False,
        log_path: str | None = None,
    ) -> None:
        """Start `fettle ARGUMENTS`.

        Args:
            name: for the log.
            arguments: the verb and its options.
            environment: added to ours.
            may_end: an exit with code 0 is the end of its work, not a crash.
            log_path: file that takes its output; ours by default.
        """
        merged = {**os.environ, **environment}
        process = self._spawn(tuple(arguments), merged, log_path)
        self._children.append(
            _Child(name, tuple(arguments), merged, process, clock.monotonic_s(), may_end=may_end, log_path=log_path)
        )

    @staticmethod
    def _spawn(
        arguments: tuple[str, ...], environment: dict[str, str], log_path: str | None
    ) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "fettle.cli", *arguments]
        # at once: with us die the database and the broker, and a verb that waits for them would linger
        parent_death = functools.partial(die_with_parent, signal.SIGKILL)
        if log_path is None:
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=parent_death,  # noqa: PLW1509 -- prctl is safe after fork
            )
        with open(log_path, "ab") as sink:  # noqa: PTH123 -- a plain descriptor for the child
            return subprocess.Popen(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                start_new_session=True,
                preexec_fn=parent_death,  # noqa: PLW1509 -- prctl is safe after fork
            )

    def watch(self, stop: threading.Event) -> None:
        """Keep the children running until `stop` is set. One that ends is started again, later each time."""
        while not stop.wait(0.2):
            self.check()

    def check(self) -> None:
        """Restart what has ended and is due."""
        now = clock.monotonic_s()
        for child in self._children:
            if child.restart_at is None:
                code = child.process.poll()
                if code is None or (code == 0 and child.may_end):
                    continue
                if now - child.started_at > 60:
                    child.restarts = 0
                delay = min(30.0, 0.5 * 2 ** min(child.restarts, 6))  # a power of a thousand restarts is no float
                _log.error("child.ended", name=child.name, code=code, restart_in_s=delay)
                child.restart_at = now + delay
            elif now >= child.restart_at:
                child.process = self._spawn(child.arguments, child.environment, child.log_path)
                child.started_at, child.restart_at = now, None
                child.restarts += 1

    def stop(self) -> None:
        """Ask every child to end, newest first, and end those that do not within some seconds."""
        for child in reversed(self._children):
            if child.process.poll() is None:
                child.process.terminate()
        deadline = clock.monotonic_s() + _GRACE_S
        for child in reversed(self._children):
            try:
                child.process.wait(max(0.1, deadline - clock.monotonic_s()))
            except subprocess.TimeoutExpired:
                _log.warning("child.killed", name=child.name)
                child.process.kill()
                child.process.wait()
        self._children.clear()
