"""Step means kept while a machine is learned: float32 rows that are given back once the baseline is accepted."""

import numpy as np
import numpy.typing as npt

from anomaly.columns import AnyArray, FloatArray, IntArray
from anomaly.model import LAG_TAUS_S

_LAGS = 2 * len(LAG_TAUS_S)


class Training:
    """Rows by machine (times, thermal memory) and by sensor (means), `length` steps each."""

    def __init__(self, length: int) -> None:
        self._length = length
        self._count = np.zeros(0, dtype=np.int64)
        self._at = np.zeros((0, length), dtype=np.int64)
        self._lag = np.zeros((0, length, _LAGS), dtype=np.float32)
        self._x = np.zeros((0, length), dtype=np.float32)
        self._machine_slot = np.zeros(0, dtype=np.int64)
        self._sensor_slot = np.zeros(0, dtype=np.int64)
        self._free_machines: list[int] = []
        self._free_sensors: list[int] = []

    def open(self, machine: int, sensors: IntArray) -> None:
        """Give a machine and its sensors room to learn; empties what they had."""
        self._machine_slot = _grown(self._machine_slot, machine + 1, -1)
        self._sensor_slot = _grown(self._sensor_slot, int(sensors.max(initial=-1)) + 1, -1)
        if self._machine_slot[machine] < 0:
            if not self._free_machines:
                self._grow_machines()
            self._machine_slot[machine] = self._free_machines.pop()
        self._count[self._machine_slot[machine]] = 0
        for sensor in sensors:
            if self._sensor_slot[sensor] < 0:
                if not self._free_sensors:
                    self._grow_sensors()
                self._sensor_slot[sensor] = self._free_sensors.pop()
            self._x[self._sensor_slot[sensor]] = np.nan

    def close(self, machine: int, sensors: IntArray) -> None:
        """Give the room back."""
        if self._machine_slot[machine] >= 0:
            self._free_machines.append(int(self._machine_slot[machine]))
            self._machine_slot[machine] = -1
        for sensor in sensors:
            if self._sensor_slot[sensor] >= 0:
                self._free_sensors.append(int(self._sensor_slot[sensor]))
                self._sensor_slot[sensor] = -1

    def append(
        self,
        machines: IntArray,
        at_us: IntArray,
        lag: FloatArray,
        sensors: IntArray,
        owner: IntArray,
        means: FloatArray,
    ) -> None:
        """Add one step of `machines`; `owner` is the position in `machines` of each of `sensors`. A full row drops its oldest half step by step."""
        slot = self._machine_slot[machines]
        full = self._count[slot] >= self._length
        for k in np.flatnonzero(full):
            self._thin(int(machines[k]), sensors[owner == k])
        position = self._count[slot]
        self._at[slot, position] = at_us
        self._lag[slot, position] = lag
        self._x[self._sensor_slot[sensors], position[owner]] = means
        self._count[slot] += 1

    def rows(self, machine: int, sensors: IntArray) -> tuple[IntArray, FloatArray, FloatArray]:
        """Return times, thermal memory and means (time, sensor) of a machine."""
        slot = self._machine_slot[machine]
        n = int(self._count[slot])
        means = self._x[self._sensor_slot[sensors], :n].T.astype(np.float64)
        return self._at[slot, :n].copy(), self._lag[slot, :n].astype(np.float64), means

    def take(self, other: "Training", machine: int, sensors: IntArray, to_machine: int, to_sensors: IntArray) -> None:
        """Take over what another has of a machine, bit by bit; `machine` and `sensors` are its rows there, the others here."""
        slot = other.slot(machine)
        if slot < 0:
            self.close(to_machine, to_sensors)
            return
        self.open(to_machine, to_sensors)
        theirs = other.dump()
        mine, count = self.slot(to_machine), int(theirs["training.count"][slot])
        self._count[mine] = count
        self._at[mine, :count] = theirs["training.at"][slot, :count]
        self._lag[mine, :count] = theirs["training.lag"][slot, :count]
        slots = theirs["training.sensor_slot"][sensors]
        self._x[self._sensor_slot[to_sensors], :count] = theirs["training.x"][slots, :count]

    def slot(self, machine: int) -> int:
        """Return the row that a machine learns in, -1 where it has none."""
        return int(self._machine_slot[machine]) if machine < len(self._machine_slot) else -1

    def coarsen(self, machine: int, sensors: IntArray, step_us: int) -> None:
        """Average the steps of a machine into longer ones."""
        slot = self._machine_slot[machine]
        at, lag, means = self.rows(machine, sensors)
        if len(at) == 0:
            return
        bins = at // step_us
        starts = np.flatnonzero(np.diff(bins, prepend=bins[0] - 1))
        ends = np.append(starts[1:], len(at))
        valid = np.isfinite(means)
        count = np.add.reduceat(valid, starts, axis=0)
        total = np.add.reduceat(np.where(valid, means, 0.0), starts, axis=0)
        n = len(starts)
        self._at[slot, :n] = at[ends - 1]
        self._lag[slot, :n] = lag[ends - 1]
        slots = self._sensor_slot[sensors]
        self._x[slots] = np.nan
        self._x[slots, :n] = np.where(count > 0, total / np.maximum(count, 1), np.nan).T
        self._count[slot] = n

    def _thin(self, machine: int, sensors: IntArray) -> None:
        """Drop every second step, so that a baseline that is never accepted stays bounded and spans all of its time."""
        slot = self._machine_slot[machine]
        at, lag, means = self.rows(machine, sensors)
        n = len(at[::2])
        self._at[slot, :n] = at[::2]
        self._lag[slot, :n] = lag[::2]
        slots = self._sensor_slot[sensors]
        self._x[slots] = np.nan
        self._x[slots, :n] = means[::2].T
        self._count[slot] = n

    def _grow_machines(self) -> None:
        old = len(self._count)
        new = max(8, 2 * old)
        self._count = _grown(self._count, new, 0)
        self._at = _grown(self._at, new, 0)
        self._lag = _grown(self._lag, new, 0)
        self._free_machines.extend(range(new - 1, old - 1, -1))

    def _grow_sensors(self) -> None:
        old = len(self._x)
        new = max(16, 2 * old)
        self._x = _grown(self._x, new, 0)
        self._free_sensors.extend(range(new - 1, old - 1, -1))

    def dump(self) -> dict[str, AnyArray]:
        used = int(self._count.max(initial=0))
        return {
            "training.count": self._count,
            "training.at": self._at[:, :used],
            "training.lag": self._lag[:, :used],
            "training.x": self._x[:, :used],
            "training.machine_slot": self._machine_slot,
            "training.sensor_slot": self._sensor_slot,
            "training.free_machines": np.array(self._free_machines, dtype=np.int64),
            "training.free_sensors": np.array(self._free_sensors, dtype=np.int64),
        }

    def load(self, arrays: dict[str, AnyArray]) -> None:
        def wide(values: AnyArray) -> AnyArray:
            fresh = np.zeros((values.shape[0], self._length, *values.shape[2:]), dtype=values.dtype)
            fresh[:, : values.shape[1]] = values
            return fresh

        self._count = arrays["training.count"].copy()
        self._at = wide(arrays["training.at"])
        self._lag = wide(arrays["training.lag"])
        self._x = wide(arrays["training.x"])
        self._machine_slot = arrays["training.machine_slot"].copy()
        self._sensor_slot = arrays["training.sensor_slot"].copy()
        self._free_machines = arrays["training.free_machines"].tolist()
        self._free_sensors = arrays["training.free_sensors"].tolist()


def _grown(values: npt.NDArray[np.generic], length: int, fill: float) -> AnyArray:
    if len(values) >= length:
        return values
    fresh = np.full((length, *values.shape[1:]), fill, dtype=values.dtype)
    fresh[: len(values)] = values
    return fresh
