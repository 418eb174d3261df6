"""Structure of arrays: one numpy array per statistic, one row per sensor, channel or machine.

class Machines(Columns):
    step_us: IntArray = column("i8", 0)

machines = Machines()
rows = machines.add(3)          # three new rows, filled with the defaults
machines.step_us[rows] = 60_000_000
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from fettle.errors import FettleError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
CountArray = npt.NDArray[np.int32]
SmallArray = npt.NDArray[np.int16]
ShortArray = npt.NDArray[np.float32]  # enough for what is stored; recursions run in float64
BoolArray = npt.NDArray[np.bool_]
AnyArray = npt.NDArray[Any]

NEVER = np.iinfo(np.int64).min // 4
"""An instant before all others, far enough from the edge of int64 to subtract from."""


class ForeignState(FettleError):
    """Stored detector state does not fit this program: {what}. Rebuild it with 'fettle detect --rebuild'."""


def is_alike(stored: np.dtype[Any], own: np.dtype[Any]) -> bool:
    """Say whether stored values can be taken: of the same type, or floats of another width, as earlier versions stored them."""
    return stored == own or (stored.kind == "f" and own.kind == "f")


class _Column:
    def __init__(self, dtype: str, fill: float, shape: tuple[int, ...]) -> None:
        self.dtype, self.fill, self.shape = np.dtype(dtype), fill, shape


def column(dtype: str, fill: float = 0, shape: tuple[int, ...] = ()) -> Any:
    """Declare one column: its numpy type, the value of a new row, and the shape of one cell."""
    return _Column(dtype, fill, shape)


class Columns:
    """A table of named arrays that grow together. Arrays are views of `n` rows: fetch them anew after `add`."""

    _spec: dict[str, _Column]

    def __init_subclass__(cls) -> None:
        cls._spec = {name: value for name, value in vars(cls).items() if isinstance(value, _Column)}

    def __init__(self) -> None:
        self.n = 0
        self._full: dict[str, AnyArray] = {}
        self._resize(0)

    def _resize(self, capacity: int) -> None:
        for name, spec in self._spec.items():
            fresh = np.full((capacity, *spec.shape), spec.fill, dtype=spec.dtype)
            if name in self._full:
                fresh[: self.n] = self._full[name][: self.n]
            self._full[name] = fresh
        self._view()

    def _view(self) -> None:
        for name, full in self._full.items():
            setattr(self, name, full[: self.n])

    def add(self, count: int) -> IntArray:
        """Append rows with default values and return their numbers."""
        first = self.n
        capacity = len(next(iter(self._full.values())))
        if first + count > capacity:
            self._resize(max(first + count, 2 * capacity))
        self.n += count
        self._view()
        return np.arange(first, self.n)

    def dump(self, prefix: str) -> dict[str, AnyArray]:
        return {f"{prefix}.{name}": full[: self.n] for name, full in self._full.items()}

    def load(self, prefix: str, arrays: dict[str, AnyArray]) -> None:
        """Take the rows from `dump`; a column this version adds keeps its default, floats of another width are converted.

        Raises:
            ForeignState: a column has another type or shape than this program expects.
        """
        found = {name: arrays[f"{prefix}.{name}"] for name in self._spec if f"{prefix}.{name}" in arrays}
        lengths = {len(values) for values in found.values()}
        if len(lengths) != 1:
            raise ForeignState(what=f"table {prefix} has columns of lengths {sorted(lengths)}")
        self.n = 0
        self._resize(lengths.pop())
        self.n = len(next(iter(found.values())))
        for name, values in found.items():
            full = self._full[name]
            if not is_alike(values.dtype, full.dtype) or values.shape != full.shape:
                raise ForeignState(what=f"column {prefix}.{name} is {values.dtype} {values.shape}")
            full[:] = values
        self._view()

    def defaults(self) -> dict[str, float]:
        """Return the value that each column of a new row has."""
        return {name: spec.fill for name, spec in self._spec.items()}

    def nbytes_per_row(self) -> int:
        return sum(spec.dtype.itemsize * int(np.prod(spec.shape, dtype=int)) for spec in self._spec.values())


class Groups:
    """Rows that belong to owners (sensors to machines): owner -> rows, gathered for many owners at once."""

    def __init__(self, owner: npt.NDArray[np.integer[Any]], owners: int) -> None:
        self._rows: IntArray = np.argsort(owner, kind="stable").astype(np.int64)
        counts: IntArray = np.bincount(owner, minlength=owners).astype(np.int64)
        self._ends = np.cumsum(counts)
        self._starts = self._ends - counts
        self._counts = counts
        self._all = np.arange(owners)
        whole: IntArray = np.asarray(owner, dtype=np.int64)[self._rows]
        self._whole = (self._rows, whole)

    def rows(self, owners: IntArray) -> tuple[IntArray, IntArray]:
        """Return the rows of `owners`, and for each of them the position of its owner in `owners`."""
        if len(owners) == len(self._all) and np.array_equal(owners, self._all):
            return self._whole
        counts = self._counts[owners]
        position = np.repeat(np.arange(len(owners)), counts)
        offset = np.arange(int(counts.sum())) - np.repeat(np.cumsum(counts) - counts, counts)
        return self._rows[self._starts[owners][position] + offset], position

    def of(self, owner: int) -> IntArray:
        return self._rows[self._starts[owner] : self._ends[owner]]
