"""One contract for every detector: what it may be given, what it must say, and that nothing but the data decides.

Subjects that fold a stream implement four verbs: `fold(rows, at)` returns what it says after them (the first number is the
score, higher is worse), `learned()` the bytes of what was taught, `dump()` and `load(bytes)` its whole state.
"""

import ast
import io
from pathlib import Path

import numpy as np
import pytest

import anomaly
from anomaly import conformal, diagnosis, envelope, mewma, opinions, prognosis
from anomaly.api import Engine, EngineConfig, ForeignState, MachineMeta, SensorMeta
from fettle.model import MachineId, Quality, SensorId, SignalKind
from fettle.wire import READING_DTYPE

START, STEP = 1_790_000_400_000_000 // 86_400_000_000 * 86_400_000_000, 1_800_000_000
BASELINE, LATER = 480, 60
SENSORS = (
    ("temperature", SignalKind.TEMPERATURE, "°C"),
    ("vibration", SignalKind.VIBRATION_VELOCITY, "mm/s"),
    ("pressure", SignalKind.PRESSURE, "bar"),
)
USUAL = np.array([45.0, 1.6, 4.0])


def healthy(n, seed):
    random = np.random.default_rng(seed)
    return USUAL * np.exp(random.normal(0, [0.01, 0.03, 0.01], (n, 3)))


def instants(n, first):
    return START + (first + np.arange(n, dtype=np.int64)) * STEP


class Alone:
    """What the subjects have in common."""

    order_free = False

    def taught(self):
        """Return a copy that has seen the healthy baseline."""
        cls = type(self)
        if cls not in _TAUGHT:
            fresh = cls()
            fresh.fold(healthy(BASELINE, 0), instants(BASELINE, 0))
            _TAUGHT[cls] = fresh.dump()
        again = cls()
        again.load(_TAUGHT[cls])
        return again


_TAUGHT = {}


def packed(arrays):
    out = io.BytesIO()
    np.savez(out, allow_pickle=False, **arrays)
    return out.getvalue()


def unpacked(state):
    with np.load(io.BytesIO(state), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


class EngineSubject(Alone):
    """The live engine: validity, limits, residuals, alarms, health, incidents."""

    order_free = True

    def __init__(self):
        self.metas = (
            [MachineMeta(MachineId(1), "M-1", iso_class="10816-1-II")],
            [SensorMeta(SensorId(k), MachineId(1), *s) for k, s in enumerate(SENSORS, start=1)],
        )
        self.engine = Engine()
        self.engine.register(*self.metas)

    def readings(self, rows, at):
        out = np.zeros(rows.size, dtype=READING_DTYPE)
        out["sensor_id"], out["quality"] = np.tile([1, 2, 3], len(rows)), Quality.GOOD
        out["ts"], out["value"] = np.repeat(at, 3), rows.ravel()
        return out

    def fold(self, rows, at):
        if len(rows):
            self.engine.fold(self.readings(rows, at), int(at[-1]) + 1)
        ch = self.engine.channels
        return np.concatenate([[ch.score.max(initial=0.0)], ch.score, ch.level])

    def shuffled(self, rows, at, seed):
        batch = self.readings(rows, at)
        self.engine.fold(batch[np.random.default_rng(seed).permutation(len(batch))], int(at[-1]) + 1)
        return self.fold(rows[:0], at[:0])

    def learned(self):
        ch = self.engine.channels
        return b"".join(a.tobytes() for a in (ch.coefficients, ch.sigma, ch.shift, ch.fitted_us))

    def dump(self):
        return self.engine.dump()

    def load(self, state):
        self.engine = Engine.load(state, machines=self.metas[0], sensors=self.metas[1])


class MewmaSubject(Alone):
    """Level and volatility distance."""

    def __init__(self):
        self.model = mewma.learn(healthy(BASELINE, 9))
        self.state = mewma.start(self.model)

    def fold(self, rows, at):
        if not len(rows):
            return np.zeros(1)
        scored = mewma.score(self.model, self.state, rows)
        self.state = scored.state
        return np.concatenate([[scored.score[-1]], scored.contributions[-1]])

    def learned(self):
        return packed(self.model.dump())

    def dump(self):
        return packed(
            {f"m.{k}": v for k, v in self.model.dump().items()} | {f"s.{k}": v for k, v in self.state.dump().items()}
        )

    def load(self, state):
        arrays = unpacked(state)
        self.model = mewma.Model.restore({k[2:]: v for k, v in arrays.items() if k[0] == "m"})
        self.state = mewma.State.restore({k[2:]: v for k, v in arrays.items() if k[0] == "s"})


class ConformalSubject(Alone):
    """Novelty by rank, of the vibration; what is suspicious is not learned."""

    views = conformal.Views(start=20, capacity=500, shapes=200)

    def __init__(self):
        self.novelty = conformal.Novelty(self.views)

    def fold(self, rows, at):
        said = np.zeros(1 + len(self.views.names))
        for value, instant in zip(rows[:, 1].tolist(), at.tolist(), strict=True):
            parts = self.novelty.score(value, instant)
            said = np.concatenate([[parts.sum()], parts])
            if value < 3.0:  # half the way to what the faults below reach
                self.novelty.learn(value, instant)
        return said

    def learned(self):
        return self.dump()

    def dump(self):
        return packed(self.novelty.dump())

    def load(self, state):
        self.novelty = conformal.Novelty.restore(unpacked(state), self.views)


class HealthSubject(Alone):
    """Health index over channels."""

    def __init__(self):
        self.health = prognosis.learn_health(healthy(BASELINE, 9))
        self.level = None

    def fold(self, rows, at):
        present = rows[np.isfinite(rows).all(axis=1)]
        index, self.level = prognosis.health_index(self.health, present, self.level)
        return np.array([index[-1] if len(index) else 0.0, *self.level])

    def learned(self):
        return self.health.mean.tobytes() + self.health.scale.tobytes()

    def dump(self):
        return packed({"mean": self.health.mean, "scale": self.health.scale, "level": self.level})

    def load(self, state):
        arrays = unpacked(state)
        self.health = prognosis.Health(arrays["mean"], arrays["scale"], self.health.weight)
        self.level = arrays["level"]


STREAMS = [EngineSubject, MewmaSubject, ConformalSubject, HealthSubject]
every_stream = pytest.mark.parametrize("subject", STREAMS, ids=lambda s: s.__name__.removesuffix("Subject").lower())


@every_stream
def test_finite_input_gives_finite_scores_of_at_least_zero(subject):
    said = subject().taught().fold(healthy(LATER, 1), instants(LATER, BASELINE))
    assert np.isfinite(said).all()
    assert said[0] >= 0


@every_stream
def test_further_from_healthy_is_higher(subject):
    rows, at = healthy(LATER, 1), instants(LATER, BASELINE)
    scores = [subject().taught().fold(rows * [1, factor, 1], at)[0] for factor in (1.0, 1.3, 2.0)]
    assert scores == sorted(scores)
    assert scores[-1] > 2 * max(scores[0], 0.1)


@every_stream
@pytest.mark.parametrize("value", [0.0, 1.6, 1e6])
def test_constant_input_is_survived(subject, value):
    said = subject().taught().fold(np.full((LATER, 3), value), instants(LATER, BASELINE))
    assert np.isfinite(said).all()
    rows = np.full((BASELINE, 3), value)
    if subject in {EngineSubject, ConformalSubject}:  # and it may be all that there ever was
        fresh = subject()
        assert np.isfinite(fresh.fold(rows, instants(BASELINE, 0))).all()


@every_stream
def test_missing_values_are_no_evidence(subject):
    gone = np.full((LATER, 3), np.nan)
    detector = subject().taught()
    before = detector.fold(healthy(1, 1), instants(1, BASELINE))
    after = detector.fold(gone, instants(LATER, BASELINE + 1))
    assert np.isfinite(after).all()
    assert after[0] <= max(before[0], 1.0) + 1e-9
    back = detector.fold(healthy(1, 2), instants(1, BASELINE + LATER + 1))
    assert np.isfinite(back).all()


@every_stream
def test_a_single_sample_is_enough_to_say_something_and_never_an_alarm_of_the_engine(subject):
    fresh = subject()
    assert np.isfinite(fresh.fold(healthy(1, 1), instants(1, 0))).all()
    if subject is EngineSubject:
        assert fresh.engine.open_findings(1) == []


def test_repeated_and_late_samples_change_nothing_of_the_engine():
    once, twice = EngineSubject().taught(), EngineSubject().taught()
    rows, at = healthy(LATER, 1), instants(LATER, BASELINE)
    expected = once.fold(rows, at)
    twice.fold(rows, at)
    assert np.array_equal(twice.fold(rows, at), expected)
    assert np.array_equal(twice.fold(rows[:10], at[:10]), expected)


def test_the_order_of_rows_inside_a_batch_does_not_matter_to_the_engine():
    rows, at = healthy(LATER, 1), instants(LATER, BASELINE)
    expected = EngineSubject().taught().fold(rows, at)
    for seed in range(3):
        assert np.array_equal(EngineSubject().taught().shuffled(rows, at, seed), expected)


@every_stream
def test_a_batch_and_a_stream_say_the_same(subject):
    rows, at = healthy(LATER, 1), instants(LATER, BASELINE)
    rows[20:] *= [1.02, 1.5, 1.0]
    at_once = subject().taught().fold(rows, at)
    streamed = subject().taught()
    for k in range(LATER):
        said = streamed.fold(rows[k : k + 1], at[k : k + 1])
    np.testing.assert_allclose(said, at_once, rtol=0, atol=1e-9)


@every_stream
def test_saved_and_loaded_it_goes_on_bit_by_bit(subject):
    rows, at = healthy(LATER, 1), instants(LATER, BASELINE)
    through, stopped = subject().taught(), subject().taught()
    through.fold(rows[:31], at[:31])
    stopped.fold(rows[:31], at[:31])
    state = stopped.dump()
    again = subject()
    again.load(state)
    assert again.dump() == state
    assert again.fold(rows[31:], at[31:]).tobytes() == through.fold(rows[31:], at[31:]).tobytes()


class Bomb:
    def __reduce__(self):
        raise AssertionError("a pickle was opened")


@every_stream
def test_pickled_objects_are_refused(subject):
    arrays = unpacked(subject().taught().dump())
    name = min(arrays)
    out = io.BytesIO()
    np.savez(out, **{**arrays, name: np.array([None], dtype=object)})
    with pytest.raises((ForeignState, ValueError), match=r"pickle|cannot be read"):
        subject().load(out.getvalue())


@every_stream
def test_nothing_is_learned_from_a_fault(subject):
    detector = subject().taught()
    rows = healthy(LATER, 1) * [1, 3.0, 1]
    detector.fold(rows[:20], instants(20, BASELINE))
    before = detector.learned()
    detector.fold(rows[20:], instants(LATER - 20, BASELINE + 20))
    assert detector.learned() == before


@every_stream
def test_a_long_fault_is_as_loud_at_its_end_as_in_its_middle(subject):
    detector = subject().taught()
    rows = healthy(4 * LATER, 1) * [1, 3.0, 1]
    middle = detector.fold(rows[: 2 * LATER], instants(2 * LATER, BASELINE))[0]
    end = detector.fold(rows[2 * LATER :], instants(2 * LATER, BASELINE + 2 * LATER))[0]
    assert end > 0.5 * middle > 0


# -- detectors that look at one window, and remember nothing


def race_strength(size, seed=0):
    random = np.random.default_rng(seed)
    t = np.arange(12_000) / 12_000
    ring = np.exp(-np.arange(80) / 12) * np.sin(2 * np.pi * 3500 * np.arange(80) / 12_000)
    train = np.zeros(len(t))
    train[(np.arange(80) / 88.0 * 12_000).astype(int) % len(t)] = size
    return 0.1 * random.standard_normal(len(t)) + np.convolve(train, ring)[: len(t)]


def envelope_score(size):
    naming = envelope.name_race(race_strength(size), 12_000.0, shaft_hz=88.0 / 3.5848, geometry=envelope.SKF_6205)
    return naming.strengths[envelope.Race.OUTER]


def diagnosis_score(size):
    recording = diagnosis.Recording("v", "g", 0, 12_000.0, race_strength(size))
    bearing = diagnosis.Bearing("6205", envelope.SKF_6205, is_assumed=False)
    return diagnosis.diagnose(recording, [], bearing=bearing, shaft_hz=88.0 / 3.5848)["lines"][0]["strength"]


def opinion_score(size):
    window = healthy(30, 3) * [1, 1 + 0.05 * size, 1]
    said = {o.model: o.percentile for o in opinions.second_opinions(healthy(300, 0), window, first=1)}
    return said["pca"]


def outlook_score(size):
    """How soon a limit is reached; no estimate counts as never."""
    at = START + np.arange(240, dtype=np.int64) * 3_600_000_000
    values = 1 + 0.004 * size * np.arange(240) + np.random.default_rng(1).normal(0, 0.02, 240)
    span = prognosis.time_to_limit(at, values, 20.0)
    return 0.0 if span is None else 1.0 / max(span.middle, 1e-3)


WINDOWS = [envelope_score, diagnosis_score, opinion_score, outlook_score]
every_window = pytest.mark.parametrize("score", WINDOWS, ids=lambda f: f.__name__.removesuffix("_score"))


@every_window
def test_a_window_is_scored_finitely_repeatably_and_more_where_it_is_worse(score):
    scores = [score(size) for size in (0.0, 1.0, 4.0)]
    assert np.isfinite(scores).all()
    assert scores == sorted(scores)
    assert scores[-1] > scores[0]
    assert score(1.0) == scores[1]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        (lambda x: envelope.features(x, 1000.0), envelope.RecordingUnusable),
        (lambda x: envelope.name_race(x, 12_000.0, shaft_hz=20.0, geometry=envelope.SKF_6205), envelope.RecordingUnusable),
        (lambda x: diagnosis.diagnose(diagnosis.Recording("v", "g", 0, 1e4, x), [], bearing=None), envelope.RecordingUnusable),
        (lambda x: opinions.second_opinions(x[:, None], x[:, None]), opinions.TooFewRows),
    ],
    ids=["features", "race", "diagnosis", "opinions"],
)  # fmt: skip
@pytest.mark.parametrize("bad", [np.full(500, np.nan), np.ones(1)], ids=["missing", "single"])
def test_a_window_that_says_nothing_is_refused_by_name(call, error, bad):
    with pytest.raises(error):
        call(bad)


def test_a_flat_or_missing_feature_has_no_outlook():
    at = START + np.arange(240, dtype=np.int64) * 3_600_000_000
    assert prognosis.time_to_limit(at, np.ones(240), 20.0) is None
    assert prognosis.time_to_limit(at, np.full(240, np.nan), 20.0) is None
    assert prognosis.time_to_limit(at[:1], np.ones(1), 20.0) is None


# -- all of them

EDGES = {"watch", "backtest", "decisions", "store", "registry"}
MODULES = sorted(p for p in Path(anomaly.__file__).parent.glob("*.py") if p.stem not in EDGES)


@pytest.mark.parametrize("module", MODULES, ids=lambda p: p.stem)
def test_no_detector_reads_a_clock_or_opens_pickles(module):
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [f".{node.attr}"]
        forbidden = {"time", "pickle", "joblib", "fettle.clock", ".utcnow", ".today"}
        assert not forbidden.intersection(names), f"line {node.lineno}"


def test_the_configuration_that_all_of_this_was_shown_with_is_the_shipped_one():
    assert EngineSubject().engine.config.digest() == EngineConfig().digest()
