"""C-MAPSS FD001: remaining cycles of 100 engines from 100 that ran to failure, with intervals."""

import argparse
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly import fleet_life, prognosis
from benchmarks.corpus import data_folder, versions

Floats = NDArray[np.float64]

CAP = 125.0
SEED = 0
BASELINE_CYCLES = 30
PROTOCOL = """NASA C-MAPSS FD001: learn on engines run to failure, estimate each test engine once, at its last cycle. Error = estimate
− truth; RMSE with truths capped at 125 and raw; NASA score Σ(e^{−e/13} − 1 | e < 0, e^{e/10} − 1 | e ≥ 0). Intervals at 90 %,
their errors measured on training engines left out of the trees. Features and trees were chosen by 5-fold cross-validation over
the training engines."""


def read_table(folder: Path, name: str) -> Floats:
    """Read NAME.csv (commas and a header) or the original NAME.txt (blanks, no header)."""
    for path in (folder / f"{name}.csv", folder / f"{name}.txt"):
        if path.is_file():
            first = path.read_text(encoding="latin-1").splitlines()[0]
            header = any(character.isalpha() and character not in "eE" for character in first)
            delimiter = "," if "," in first else None
            return np.genfromtxt(path, delimiter=delimiter, skip_header=int(header), encoding="latin-1")
    raise SystemExit(f"{folder}: neither {name}.csv nor {name}.txt; give the C-MAPSS folder with --data DIR")


def engines(table: Floats) -> list[Floats]:
    """Split rows (unit, cycle, 3 settings, 21 sensors) into one (cycles, 21) array of sensors per engine."""
    return [table[table[:, 0] == unit][:, 5:26] for unit in np.unique(table[:, 0])]


def nasa_score(error: Floats) -> float:
    """Return the challenge's asymmetric score; late estimates cost more."""
    return float(np.where(error < 0, np.exp(-error / 13), np.exp(error / 10)).sum() - len(error))


def rmse(error: Floats) -> float:
    return float(np.sqrt(np.mean(error**2)))


def run(argv: list[str]) -> dict[str, object]:
    parser = argparse.ArgumentParser(prog="benchmarks rul", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with FD001; default: cmapss-fd001 beside the repository")
    parser.add_argument("--set", default="FD001", help="FD001 (one operating condition)")
    options = parser.parse_args(argv)
    folder = data_folder("cmapss-fd001", options.data)
    training = engines(read_table(folder, f"train_{options.set}"))
    tested = engines(read_table(folder, f"test_{options.set}"))
    truth = np.atleast_1d(read_table(folder, f"RUL_{options.set}")).astype(np.float64)
    if len(truth) != len(tested):
        raise SystemExit(f"{folder}: {len(truth)} true values for {len(tested)} test engines")
    print(PROTOCOL)
    print(versions("numpy", "scipy", "scikit-learn"), f"; seed {SEED}; origin: NASA Prognostics Center of Excellence")
    print(f"data: {len(training)} engines to failure, {len(tested)} to judge\n")

    model = fleet_life.learn(training, cap=CAP, seed=SEED)
    last = np.vstack([fleet_life.advance(model, fleet_life.fresh(model), rows)[0][-1] for rows in tested])
    estimate = fleet_life.cycles_left(model, last)
    capped = np.minimum(truth, CAP)

    mean_left = float(np.mean(np.concatenate([np.minimum(np.arange(len(rows)), CAP) for rows in training])))
    typical = float(np.median([len(rows) for rows in training]))
    ages = np.array([len(rows) for rows in tested], dtype=np.float64)
    print(f"{'':34} RMSE capped   raw    NASA")
    for name, guess in (
        ("always the mean", np.full(len(truth), mean_left)),
        ("always 125", np.full(len(truth), CAP)),
        ("median life minus age", np.clip(typical - ages, 0, CAP)),
        ("boosted trees", estimate.middle),
    ):
        print(f"{name:34} {rmse(guess - capped):11.2f} {rmse(guess - truth):5.2f} {nasa_score(guess - truth):7.0f}")

    covered = (truth >= estimate.low) & (truth <= estimate.high)
    finite = np.isfinite(estimate.high)
    width = float(np.median(estimate.high[finite] - estimate.low[finite])) if finite.any() else None
    print(
        f"90 % intervals cover {covered.mean():.2f}; {int(finite.sum())} are bounded above, their median width {width} cycles"
    )

    leads, flat = [], 0
    for rows in training:
        index, _ = prognosis.health_index(prognosis.learn_health(rows[:BASELINE_CYCLES]), rows)
        row = prognosis.raised_at(index)
        leads.append(len(rows) - 1 - row if row is not None else 0)
    for rows in tested:
        index, _ = prognosis.health_index(prognosis.learn_health(rows[:BASELINE_CYCLES]), rows)
        flat += prognosis.raised_at(index) is None
    warned = int(np.count_nonzero(leads))
    print(
        f"health index: {warned} of {len(training)} engines warned, median lead {np.median(leads):.0f}, least {min(leads)}"
    )
    print(
        f"'no estimate' in service, the index being flat: {flat} of {len(tested)} test engines (figures above judge all)"
    )
    return {
        "benchmark": "rul",
        "engines": len(tested),
        "rmse_capped125": round(rmse(estimate.middle - capped), 3),
        "rmse_raw": round(rmse(estimate.middle - truth), 3),
        "nasa_score": round(nasa_score(estimate.middle - truth), 1),
        "interval_coverage": round(float(covered.mean()), 3),
        "interval_median_width": None if width is None else round(width, 1),
        "intervals_bounded": int(finite.sum()),
        "warned": warned,
        "median_lead_cycles": float(np.median(leads)),
        "least_lead_cycles": int(min(leads)),
        "no_estimate": int(flat),
        "rmse_always_mean": round(rmse(mean_left - capped), 3),
    }
