"""CWRU: name the damaged bearing race from the envelope spectrum of single recordings."""

import argparse
import csv
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly import envelope
from benchmarks.corpus import data_folder, versions

Floats = NDArray[np.float64]

NOMINAL_RPM = {"0": 1797.0, "1": 1772.0, "2": 1750.0, "3": 1730.0}
"""Load in horsepower, the number at the end of a recording's name → shaft speed of the CWRU rig."""
TIME_COLUMNS = {"t", "t_s", "time", "time_s", "seconds"}
RPM_COLUMNS = {"rpm", "shaft_rpm", "speed_rpm"}
LABEL_COLUMNS = {"fault", "label", "condition", "class"}
IGNORED_COLUMNS = {"", "index", "sample"}
KINDS = (
    ("normal", re.compile(r"normal|healthy|baseline")),
    ("inner", re.compile(r"inner|(?<![a-z])ir(?![a-z])")),
    ("outer", re.compile(r"outer|(?<![a-z])or(?![a-z])")),
    ("ball", re.compile(r"ball|roll|(?<![a-z])b(?=[_\d]|$)")),
)
RACE_OF = {"inner": envelope.Race.INNER, "outer": envelope.Race.OUTER, "ball": envelope.Race.BALL}
PROTOCOL = """CWRU Bearing Data Center, drive-end accelerometer, bearing SKF 6205. Each recording is judged alone: a race is named when
its line (mean of 3 harmonics, ±1.5 %) in the envelope spectrum of 2–5.5 kHz stands 10 floors high and twice over the next."""


@dataclass(frozen=True, slots=True)
class Recording:
    """One waveform with what is known of it; `kind` is the label, or empty where the name says nothing."""

    name: str
    kind: str
    waveform: Floats
    rate_hz: float
    rpm: float | None


def kind_of(text: str) -> str:
    """Read the condition from a name such as IR007_0, OR007@6_2, Normal_1 or inner_race."""
    return next((kind for kind, pattern in KINDS if pattern.search(text.lower())), "")


def rpm_of(name: str) -> float | None:
    """Read the load at the end of a name and return the rig's nominal speed."""
    load = re.search(r"(?:^|[^0-9])([0-3])$", name)
    return NOMINAL_RPM[load[1]] if load else None


def read(path: Path, *, rate_hz: float, rpm: float | None) -> Iterator[Recording]:
    """Yield a file's recordings: every labelled column, or the one acceleration column of a file that is one recording.

    A time column gives the sampling rate, a column `rpm` the speed, a text column `fault` the condition; otherwise the
    arguments and the names do. Where there are several sensors (DE, FE, BA) the drive end is taken.
    """
    with path.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.reader(lines)
        header = [name.strip() for name in next(reader)]
        table = [row for row in reader if row]
    columns = {name: [row[i] for row in table if i < len(row) and row[i] != ""] for i, name in enumerate(header)}
    label = next((values[0] for name, values in columns.items() if name.lower() in LABEL_COLUMNS and values), "")
    numbers: dict[str, Floats] = {}
    for name, values in columns.items():
        lowered = name.lower()
        if lowered in LABEL_COLUMNS | IGNORED_COLUMNS:
            continue
        try:
            series = np.array(values, dtype=np.float64)
        except ValueError:
            continue
        if lowered in TIME_COLUMNS and len(series) > 1:
            rate_hz = float(round((len(series) - 1) / (series[-1] - series[0])))
        elif lowered in RPM_COLUMNS and len(series):
            rpm = float(np.median(series))
        elif len(series):
            numbers[name] = series
    named = {name: series for name, series in numbers.items() if kind_of(name)}
    if named and not label:
        for name, series in named.items():
            yield Recording(name, kind_of(name), series, rate_hz, rpm or rpm_of(name))
        return
    drive_end = [name for name in numbers if re.search(r"(?<![a-z])de(?![a-z])|drive.?end", name.lower())]
    chosen = drive_end or list(numbers)
    if len(chosen) != 1:
        raise SystemExit(
            f"{path}: columns {chosen} could each be the recording; leave one, or name them after conditions"
        )
    yield Recording(path.stem, kind_of(label or path.stem), numbers[chosen[0]], rate_hz, rpm or rpm_of(path.stem))


def name(recording: Recording) -> tuple[envelope.Naming, float]:
    """Return the verdict and the speed it was reached at; where the speed is unknown, the nominal one that fits best."""
    speeds = [recording.rpm] if recording.rpm else list(NOMINAL_RPM.values())
    verdicts = [
        (
            envelope.name_race(recording.waveform, recording.rate_hz, shaft_hz=rpm / 60, geometry=envelope.SKF_6205),
            rpm,
        )
        for rpm in speeds
    ]
    return max(verdicts, key=lambda verdict: (verdict[0].race is not None, verdict[0].strengths[verdict[0].winner]))


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="benchmarks cwru", description=__doc__)
    parser.add_argument(
        "--data", type=Path, help="folder of CSV recordings; default: cwru-bearing beside the repository"
    )
    parser.add_argument(
        "--rate", type=float, default=12_000.0, help="sampling rate in Hz where no time column gives it"
    )
    parser.add_argument("--rpm", type=float, help="shaft speed where neither a column nor a load in the name gives it")
    options = parser.parse_args(argv)
    folder = data_folder("cwru-bearing", options.data)
    recordings = []
    for path in sorted(folder.rglob("*.csv")):
        if path.name.startswith("feature"):
            print(f"left out, features and no waveforms: {path.name}")
            continue
        recordings += list(read(path, rate_hz=options.rate, rpm=options.rpm))
    if not recordings:
        raise SystemExit(f"{folder}: no recordings; give a folder of CSV waveforms with --data DIR")
    print(PROTOCOL)
    print(
        versions("numpy", "scipy"), "; no random numbers; origin: Case Western Reserve University Bearing Data Center"
    )
    print(
        "baselines: naming nothing finds 0 and names 0 healthy; the loudest line without a floor names every recording\n"
    )
    print(f"{'recording':20} {'s':>5} {'rpm':>6} {'RMS':>7} {'kurt':>5}   BPFO   BPFI    BSF    FTF   named (loudest)")
    return _judge(recordings)


def _judge(recordings: list[Recording]) -> dict[str, object]:
    healthy = next((one for one in recordings if one.kind == "normal"), None)
    baseline = envelope.features(healthy.waveform, healthy.rate_hz) if healthy else None
    total, named, loudest, unspecified = Counter[str](), Counter[str](), Counter[str](), Counter[str]()
    wrong = 0
    table = []
    for one in recordings:
        verdict, rpm = name(one)
        now = envelope.features(one.waveform, one.rate_hz)
        rose = verdict.race is None and baseline is not None and envelope.risen(now, baseline)
        said = verdict.race.value if verdict.race else "bearing, unspecified" if rose else "nothing"
        total[one.kind] += 1
        right = verdict.race is not None if one.kind == "normal" else verdict.race == RACE_OF.get(one.kind, "")
        named[one.kind] += right
        loudest[one.kind] += one.kind == "normal" or verdict.winner == RACE_OF.get(one.kind, "")
        unspecified[one.kind] += rose
        wrong += one.kind in RACE_OF and verdict.race is not None and verdict.race != RACE_OF[one.kind]
        strengths = {race.value: round(strength, 1) for race, strength in verdict.strengths.items()}
        lines = " ".join(f"{strength:6.1f}" for strength in strengths.values())
        seconds = len(one.waveform) / one.rate_hz
        print(
            f"{one.name:20} {seconds:5.1f} {rpm:6.0f} {now.rms:7.3f} {now.kurtosis:5.1f} {lines}   {said} ({verdict.winner})"
        )
        table.append({"name": one.name, "kind": one.kind, "rpm": rpm, "named": said, "strengths": strengths})
    result: dict[str, object] = {"benchmark": "cwru", "recordings": len(recordings)}
    for kind in ("inner", "outer", "normal", "ball"):
        result |= {f"{kind}_named": named[kind], f"{kind}_files": total[kind], f"{kind}_unspecified": unspecified[kind]}
        print(f"{kind}: {named[kind]} of {total[kind]} named, {loudest[kind]} by the loudest line alone")
    return result | {"wrongly_named": wrong, "table": table}
