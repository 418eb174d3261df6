"""NAB: online novelty ranks of one signal, by the built-in scorer of the Numenta Anomaly Benchmark."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from anomaly import conformal
from benchmarks import score_nab
from benchmarks.corpus import data_folder, versions
from benchmarks.score_nab import Outcome, Profile, Series

Floats = NDArray[np.float64]

VIEWS = conformal.Views()
PROTOCOL = """NAB (numenta/NAB, v1.1 scoring). Every row is judged from earlier rows only; the detector is told the probation length
and nothing else of the file; one configuration for all files; one threshold per profile over all files, as NAB defines it."""
PUBLISHED = (
    ("ARTime", 74.9, 65.2, 80.4),
    ("Numenta HTM", 70.1, 63.1, 74.3),
    ("CAD-OSE", 69.9, 67.0, 73.2),
    ("earthgecko Skyline", 58.2, 46.2, 63.8),
    ("KNN-CAD", 58.0, 43.4, 64.8),
    ("random", 11.0, None, None),
)
TEMPERATURES = {
    "machine_temperature": "machine_temperature_system_failure",
    "ambient_temperature": "ambient_temperature",
}


def novelty(series: Series) -> Floats:
    """Return the novelty that counts: records of the last half probation, so about 30 hours of 5-minute rows."""
    scored = conformal.Novelty(VIEWS).fold(series.values, series.at)
    return conformal.RecordGate(max(10, series.probation // 2)).fold(scored.score)


def always(series: Series) -> Floats:
    """Alarm on every row."""
    return np.ones(len(series.values))


def uniform(series: Series) -> Floats:
    """Draw from a generator seeded by the length of the file's name."""
    return np.random.default_rng(len(series.name)).random(len(series.values))


def step(series: Series) -> Floats:
    """Size of the step from the row before."""
    return np.abs(np.diff(series.values, prepend=series.values[0]))


def probation_z(series: Series) -> Floats:
    """Distance from the mean of the probation rows in their standard deviations."""
    known = series.values[: series.probation]
    return np.asarray(np.abs(series.values - known.mean()) / (known.std() + 1e-9))


def gated_probation_z(series: Series) -> Floats:
    """As before, through the same record gate as our detector."""
    return conformal.RecordGate(max(10, series.probation // 2)).fold(probation_z(series))


BASELINES: dict[str, Callable[[Series], Floats]] = {
    "uniform random": uniform,
    "step from the row before": step,
    "z on probation rows": probation_z,
    "z on probation rows, gated": gated_probation_z,
}


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="benchmarks nab", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder in NAB's layout; default: nab beside the repository")
    parser.add_argument("--files", action="store_true", help="print every file's windows, found and false events")
    options = parser.parse_args(argv)
    folder = data_folder("nab", options.data)
    corpus, profiles = score_nab.read_corpus(folder)
    windows = sum(len(series.windows) for series in corpus)
    print(PROTOCOL)
    print(versions("numpy"), "; seeds by file in the random baseline, none elsewhere")
    print(
        f"data: {len(corpus)} files, {sum(len(s.values) for s in corpus)} rows, {windows} windows; origin numenta/NAB, MIT"
    )
    print(f"\n{'':34} standard  low-FP  low-FN   found  false rows (standard)")
    print(f"{'never':34} {0:8.1f} {0:7.1f} {0:7.1f}   {0:5} {0:11}")
    always_scores = [always(series) for series in corpus]
    at_zero = [score_nab.total_at(corpus, always_scores, profile, 0.0) for profile in profiles.values()]
    print(f"{'always alarm':34} {at_zero[0]:8.1f} {at_zero[1]:7.1f} {at_zero[2]:7.1f}   {windows:5}")
    for name, detector in BASELINES.items():
        _row(name, _outcomes(corpus, [detector(series) for series in corpus], profiles))
    scores = [novelty(series) for series in track(corpus, description="novelty", transient=True)]
    outcomes = _outcomes(corpus, scores, profiles)
    _row("novelty ranks, gated", outcomes)
    kept = score_nab.held_out(corpus, scores, profiles["standard"]) if len(corpus) > 1 else None
    if kept is not None:
        print(f"{'  each file at the others’ threshold':34} {kept:8.1f}")
    print("published, whole corpus of 58 files:")
    for name, *values in PUBLISHED:
        print(f"  {name:32} " + " ".join(f"{value:7.1f}" if value is not None else f"{'':7}" for value in values))

    threshold = outcomes["standard"].threshold
    result: dict[str, object] = {
        "benchmark": "nab",
        "files": len(corpus),
        "windows": windows,
        **{name: round(outcome.score, 2) for name, outcome in outcomes.items()},
        "windows_found": outcomes["standard"].found,
        "false_rows": outcomes["standard"].false_rows,
        "threshold": round(threshold, 4),
        "held_out_standard": None if kept is None else round(kept, 2),
    }
    for series, score in zip(corpus, scores, strict=True):
        found, false_events = score_nab.found_and_false_events(series, score, threshold)
        if options.files:
            print(f"  {series.name:58} {found} of {len(series.windows)} windows, {false_events} false events")
        for key, part in TEMPERATURES.items():
            if part in series.name:
                days = (series.at[-1] - series.at[0]) / 86.4e9
                print(
                    f"{key}: {found} of {len(series.windows)} windows, {false_events} false events in {days:.0f} days"
                )
                result |= {f"{key}_found": found, f"{key}_windows": len(series.windows)}
                result |= {f"{key}_false_events": false_events}
    return result


def _outcomes(corpus: list[Series], scores: list[Floats], profiles: dict[str, Profile]) -> dict[str, Outcome]:
    return {name: score_nab.sweep(corpus, scores, profile) for name, profile in profiles.items()}


def _row(name: str, outcomes: dict[str, Outcome]) -> None:
    standard = outcomes["standard"]
    scores = f"{standard.score:8.1f} {outcomes['low_fp'].score:7.1f} {outcomes['low_fn'].score:7.1f}"
    print(f"{name:34} {scores}   {standard.found:5} {standard.false_rows:11}")
