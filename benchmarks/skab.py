"""SKAB: level-and-volatility distance on a pump rig at 1 Hz, by the published outlier and changepoint protocols."""

import argparse
import csv
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly import mewma
from benchmarks import score_skab, score_vus
from benchmarks.corpus import data_folder, versions
from benchmarks.skab_baselines import BASELINES

Floats = NDArray[np.float64]
Bits = NDArray[np.bool_]

TRAINING_ROWS = 400
SMOOTHING = mewma.Smoothing()
MULTIPLIER = 7.68
"""Alarm at this severity: chosen on valve1 among `GRID`, where leaving any one file out chooses it too."""
GRID = np.geomspace(0.3, 300, 50)
LABELS = ("anomaly", "changepoint")
UNITS = {
    "Accelerometer1RMS": "g",
    "Accelerometer2RMS": "g",
    "Current": "A",
    "Pressure": "bar",
    "Temperature": "°C",
    "Thermocouple": "°C",
    "Voltage": "V",
    "Volume Flow RateRMS": "l/min",
}
"""Units as the rig's authors state them: the files have none. A channel without a unit is judged by its data."""
THERMAL_UNITS = {"°C", "°F", "K"}
PROMISED = (
    "f1",
    "far_pct",
    "mar_pct",
    "events_found_share",
    "median_delay_s",
    "false_tickets_per_hour",
    "nab_standard",
    "healthy_run_tickets",
)
LEADERBOARD = (
    ("Conv-AE (looks 58 s ahead)", 0.78, 13.55, 28.02),
    ("MSET (looks 29 s ahead)", 0.78, 39.73, 14.13),
    ("T2+Q", 0.76, 26.62, 24.92),
    ("LSTM-AE (looks 8 s ahead)", 0.74, 29.96, 25.92),
    ("T2", 0.66, 19.21, 42.6),
    ("IsolationForest", 0.29, 2.56, 82.89),
)
PROTOCOL = """SKAB (waico/SKAB, Katser & Kozitsin). One model per file, taught by its first 400 rows without labels; every later
row gets one verdict; counts pooled over files, no point adjustment; causal; one configuration for all files."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One file: instants (µs), (n, c) channels, label columns; labels are all False where the file has none."""

    name: str
    at: NDArray[np.int64]
    rows: Floats
    units: tuple[str, ...]
    faulty: Bits
    changes: Bits

    @property
    def inertia(self) -> tuple[mewma.Inertia, ...]:
        """What the units tell of the channels."""
        fast = dict.fromkeys(self.units, mewma.Inertia.FAST)
        kinds = fast | dict.fromkeys(THERMAL_UNITS, mewma.Inertia.THERMAL) | {"": mewma.Inertia.UNKNOWN}
        return tuple(kinds[unit] for unit in self.units)

    @property
    def test(self) -> score_skab.Labelled:
        """The rows after the training rows."""
        after = slice(TRAINING_ROWS, None)
        return score_skab.Labelled(self.name, self.at[after], self.faulty[after], self.changes[after])


def read(path: Path) -> Recording:
    """Read one SKAB file: `;` between columns, `datetime`, any channels, labels where it has them."""
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines, delimiter=";")
        header = next(reader)
        if not header or header[0] != "datetime":
            raise SystemExit(f"{path}: the first column is {header[:1]}, expected datetime; is this a SKAB file?")
        table = [row for row in reader if row]
    at = np.array([_instant(row[0]) for row in table], dtype=np.int64)
    columns = {name: np.array([float(row[i]) for row in table]) for i, name in enumerate(header) if i}
    channels = [name for name in columns if name not in LABELS]
    none = np.zeros(len(at))
    return Recording(
        name=f"{path.parent.name}/{path.stem}",
        at=at,
        rows=np.column_stack([columns[name] for name in channels]),
        units=tuple(UNITS.get(name, "") for name in channels),
        faulty=columns.get("anomaly", none) > 0,
        changes=columns.get("changepoint", none) > 0,
    )


def _instant(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1e6)


def read_folder(folder: Path) -> tuple[list[Recording], list[Recording]]:
    """Return the labelled recordings of every group in the folder, and the healthy ones."""
    paths = sorted(folder.glob("*/*.csv"), key=lambda path: (path.parent.name, len(path.stem), path.stem))
    paths = paths or sorted(folder.glob("*.csv"), key=lambda path: (len(path.stem), path.stem))
    if not paths:
        raise SystemExit(f"{folder}: no CSV files; give the folder that holds valve1/, valve2/, other/, anomaly-free/")
    recordings = [read(path) for path in paths]
    return [one for one in recordings if one.faulty.any()], [one for one in recordings if not one.faulty.any()]


def severities(
    recording: Recording,
    training_rows: int = TRAINING_ROWS,
    *,
    smoothing: mewma.Smoothing = SMOOTHING,
    with_units: bool = True,
) -> Floats:
    """Teach on the first rows and return the severity of every later one; nothing sees the position in the file."""
    inertia = recording.inertia if with_units else None
    model = mewma.learn(recording.rows[:training_rows], smoothing, inertia=inertia)
    warmed = mewma.score(model, mewma.start(model), recording.rows[:training_rows]).state
    return model.severity(mewma.score(model, warmed, recording.rows[training_rows:]).score)


def leave_one_out(tests: list[score_skab.Labelled], scores: list[Floats]) -> tuple[score_skab.Outliers, list[float]]:
    """Judge every file with the multiplier that is best on the others; return pooled counts and the choices."""
    counts = [
        [score_skab.outliers(test.faulty, score > k) for k in GRID] for test, score in zip(tests, scores, strict=True)
    ]
    judged, chosen = score_skab.NO_OUTLIERS, []
    for left_out in range(len(tests)):
        f1 = [
            sum((row[k] for i, row in enumerate(counts) if i != left_out), score_skab.NO_OUTLIERS).f1
            for k in range(len(GRID))
        ]
        best = int(np.argmax(f1))
        judged += counts[left_out][best]
        chosen.append(float(GRID[best]))
    return judged, chosen


def healthy_tickets(
    recording: Recording, training_rows: int, *, smoothing: mewma.Smoothing = SMOOTHING
) -> tuple[int, float]:
    """Return the tickets opened and the share of rows alarmed after a baseline of so many rows of a healthy run."""
    provisional = smoothing is mewma.PROVISIONAL
    alarm = severities(recording, training_rows, smoothing=smoothing, with_units=not provisional) > MULTIPLIER
    return len(score_skab.tickets(recording.at[training_rows:], alarm)), float(alarm.mean())


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="benchmarks skab", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder in SKAB's layout; default: skab beside the repository")
    parser.add_argument("--quick", action="store_true", help="leave out VUS-PR and the IsolationForest row")
    options = parser.parse_args(argv)
    folder = data_folder("skab", options.data)
    faulty, healthy = read_folder(folder)

    print(PROTOCOL)
    print(versions("numpy", "scipy", "scikit-learn"), "; no random numbers but in the baselines (seed 0)")
    groups = sorted({one.name.partition("/")[0] for one in faulty})
    print(f"data: {len(faulty)} files with faults in {groups}, {len(healthy)} healthy; origin waico/SKAB, GPL-3.0")
    result: dict[str, object] = {"benchmark": "skab", "files": len(faulty), "groups": groups}
    result |= dict.fromkeys(PROMISED)  # null where the folder holds nothing to measure it on
    if faulty:
        result |= _labelled(faulty, quick=options.quick)
    if healthy:
        result |= _healthy(healthy)
    return result


def _labelled(recordings: list[Recording], *, quick: bool) -> dict[str, object]:
    tests = [one.test for one in recordings]
    print(f"\n{'':32}   F1   FAR %  MAR %  changepoints standard / low-FP / low-FN  (missed, false)")
    for name, verdict in BASELINES.items():
        if quick and name == "IsolationForest":
            continue
        alarms = [verdict(one.rows[:TRAINING_ROWS], one.rows[TRAINING_ROWS:]) for one in recordings]
        _row(name, score_skab.pooled(tests, alarms), score_skab.changepoints(tests, alarms))
    by_data = [severities(one, with_units=False) for one in recordings]
    blind = [score > MULTIPLIER for score in by_data]
    blind_rows = score_skab.pooled(tests, blind)
    scores = [severities(one) for one in recordings]
    alarms = [score > MULTIPLIER for score in scores]
    rows, changes = score_skab.pooled(tests, alarms), score_skab.changepoints(tests, alarms)
    judged, chosen = leave_one_out(tests, scores)
    blind_judged, blind_chosen = leave_one_out(tests, by_data)
    _row(f"level + volatility, k = {MULTIPLIER}", rows, changes)
    _row(f"  k leave-one-out {min(chosen):.2f}…{max(chosen):.2f}", judged, None)
    _row("  inertia by the data alone", blind_rows, score_skab.changepoints(tests, blind))
    _row(f"  k leave-one-out {min(blind_chosen):.2f}…{max(blind_chosen):.2f}", blind_judged, None)
    print("published, whole benchmark of 34 files:")
    for entry, f1, far, mar in LEADERBOARD:
        print(f"  {entry:30} {f1:.3f}  {far:5.2f}  {mar:5.2f}")

    found = score_skab.count_tickets(tests, alarms)
    print(
        f"\ntickets (10 s on, 60 s off): {found.found} of {found.events} events, median delay {found.median_delay_s} s, "
        f"{found.false} false in {found.normal_h:.2f} normal hours"
    )
    auc = float(np.mean([score_vus.roc_auc(test.faulty, score) for test, score in zip(tests, scores, strict=True)]))
    result: dict[str, object] = {
        "f1": round(rows.f1, 4),
        "far_pct": round(rows.far_pct, 2),
        "mar_pct": round(rows.mar_pct, 2),
        "leave_one_out_f1": round(judged.f1, 4),
        "leave_one_out_far_pct": round(judged.far_pct, 2),
        "leave_one_out_mar_pct": round(judged.mar_pct, 2),
        "events_found_share": round(found.found_share, 4),
        "events": found.events,
        "median_delay_s": found.median_delay_s,
        "false_tickets_per_hour": round(found.false_per_h, 3),
        "nab_standard": round(changes.standard, 2),
        "nab_low_fp": round(changes.low_fp, 2),
        "nab_low_fn": round(changes.low_fn, 2),
        "roc_auc": round(auc, 4),
        "by_data_f1": round(blind_rows.f1, 4),
        "by_data_far_pct": round(blind_rows.far_pct, 2),
        "by_data_mar_pct": round(blind_rows.mar_pct, 2),
        "by_data_leave_one_out_f1": round(blind_judged.f1, 4),
        "by_data_events_found_share": round(score_skab.count_tickets(tests, blind).found_share, 4),
        "always_alarm_f1": round(score_skab.pooled(tests, [np.ones(len(t.at), dtype=bool) for t in tests]).f1, 4),
    }
    if not quick:
        pairs = zip(tests, scores, strict=True)
        result["vus_pr"] = round(float(np.mean([score_vus.vus_pr(test.faulty, score) for test, score in pairs])), 4)
        print(f"score quality: VUS-PR {result['vus_pr']}, ROC-AUC {auc:.4f} (mean of files)")
    return result


def _row(name: str, rows: score_skab.Outliers, changes: score_skab.Changepoints | None) -> None:
    tail = ""
    if changes is not None:
        tail = f"{changes.standard:6.2f} / {changes.low_fp:6.2f} / {changes.low_fn:6.2f}  ({changes.missed}, {changes.false})"
    print(f"{name:32} {rows.f1:.3f}  {rows.far_pct:6.2f} {rows.mar_pct:6.2f}  {tail}")


def _healthy(recordings: list[Recording]) -> dict[str, object]:
    result: dict[str, object] = {}
    for key, said, training_rows, smoothing in (
        ("", "baseline 1 h", 3600, SMOOTHING),
        ("_400s", "baseline 400 s, provisional as in service", TRAINING_ROWS, mewma.PROVISIONAL),
        ("_400s_trusted", "baseline 400 s, trusted as the outlier protocol demands", TRAINING_ROWS, SMOOTHING),
    ):
        counted = [
            healthy_tickets(one, training_rows, smoothing=smoothing)
            for one in recordings
            if len(one.at) > training_rows + 60
        ]
        if not counted:
            continue
        opened, share = sum(count for count, _ in counted), float(np.mean([share for _, share in counted]))
        result[f"healthy_run_tickets{key}"] = opened
        result[f"healthy_run_rows_pct{key}"] = round(100 * share, 2)
        print(f"healthy run, {said}: {opened} tickets, {100 * share:.1f} % of later rows alarmed")
    return result
