"""Scenario files: what they may say, and what a wrong one is told."""

import re

import pytest

from simulators.api import Fleet, ScenarioWrong, load_scenario, scenario_names
from simulators.scenario import PeriodWrong, SignalUnknown, period_fits
from simulators.toml_table import DurationWrong, parse_duration_s

SITE = """
[[site]]
name = "a"
[[site.line]]
name = "l"
[[site.line.machine]]
class = "pump"
number = "P-{n}"
count = 3
[[site.line.machine]]
class = "fan"
number = "F-1"
"""


def write(tmp_path, text, name="mine.toml"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("name", scenario_names())
def test_every_scenario_that_comes_along_is_complete(name):
    scenario = load_scenario(name)
    assert scenario.name == name
    assert scenario.title
    assert re.search("[一-鿿]", scenario.title_zh)
    assert scenario.description.endswith(".")
    fleet = Fleet(scenario)
    assert len(fleet.machines) >= 12
    assert len({(m.site, m.number) for m in fleet.machines}) == len(fleet.machines)
    hour = list(fleet.generate(scenario.start_us, scenario.start_us + 3_600_000_000, machines=fleet.machines[:2]))
    assert {s.signal for s in hour} == set(scenario.signals)


@pytest.mark.parametrize(
    "name", ["quiet-day", "bearing-wear", "cooling-loss", "sensor-faults", "power-dip", "month-of-production", "demo"]
)
def test_promised_scenarios_exist(name):
    assert name in scenario_names()


def test_the_demo_is_what_the_demo_promises():
    scenario = load_scenario("demo")
    fleet = Fleet(scenario)
    assert len(scenario.plants) == 2
    assert sum(len(p.lines) for p in scenario.plants) == 4
    assert len(fleet.machines) >= 20
    assert scenario.signals == ("temperature", "vibration", "current")
    assert scenario.duration_us == 8 * 86_400_000_000
    assert 3 <= len(scenario.faults) <= 4
    assert len({f.kind.family for f in scenario.faults}) == len(scenario.faults)
    assert all(f.onset_us > scenario.start_us + 6 * 86_400_000_000 for f in scenario.faults)


def test_a_file_of_ones_own(tmp_path):
    path = write(
        tmp_path,
        SITE
        + """
        [[fault]]
        machine = "P-2"
        kind = "cavitation"
        onset = "2h"
        to_failure = "90min"
        """,
    )
    scenario = load_scenario(path)
    (fault,) = scenario.faults
    assert (fault.site, fault.machine) == ("a", "P-2")
    assert fault.onset_us - scenario.start_us == 7_200_000_000
    assert fault.failure_us - fault.onset_us == 5_400_000_000
    assert [m.number for m in scenario.plants[0].machines] == ["P-1", "P-2", "P-3", "F-1"]


def test_classes_and_single_machines_can_be_changed(tmp_path):
    text = "[class.pump]\nvibration_mm_s = 2.5\n[class.mixer]\nrated_power_kw = 7.5\n" + SITE
    text += '[[site.line.machine]]\nclass = "mixer"\nnumber = "X-1"\nwith = { rise_k = 12 }\n'
    kinds = {m.number: m.kind for m in load_scenario(write(tmp_path, text)).plants[0].machines}
    assert kinds["P-1"].vibration_mm_s == 2.5
    assert kinds["P-1"].rated_power_kw == 22
    assert (kinds["X-1"].rated_power_kw, kinds["X-1"].rise_k) == (7.5, 12)


def test_classes_and_faults_from_files_beside_it(tmp_path):
    write(tmp_path, "[pump]\nrated_power_kw = 3\n", "classes.toml")
    write(
        tmp_path,
        '[belt_slip]\nfamily = "no_load"\ngrowth = "step"\nto_failure = "1d"\nsignals = ["current"]\nload = -0.5\n',
        "faults.toml",
    )
    text = 'classes = "classes.toml"\nfaults_file = "faults.toml"\n' + SITE
    text += '[[fault]]\nmachine = "F-1"\nkind = "belt_slip"\nonset = 0\n'
    scenario = load_scenario(write(tmp_path, text))
    assert scenario.plants[0].machines[0].kind.rated_power_kw == 3
    assert scenario.faults[0].kind.effects.load == -0.5


def test_inclusion_adds_and_overrides(tmp_path):
    write(tmp_path, "seed = 4\nperiod = 30\n" + SITE, "base.toml")
    path = write(
        tmp_path,
        'include = ["base.toml"]\nseed = 9\n[[fault]]\nmachine = "F-1"\nkind = "imbalance"\nonset = 60\n',
    )
    scenario = load_scenario(path)
    assert (scenario.seed, scenario.period_us, len(scenario.faults)) == (9, 30_000_000, 1)
    assert scenario.name == "mine"


def test_absolute_instants(tmp_path):
    text = "start = 2026-03-02T00:00:00Z\n" + SITE
    text += '[[fault]]\nmachine = "F-1"\nkind = "imbalance"\nonset = 2026-03-02T06:00:00+02:00\nend = "2026-03-03T00:00:00Z"\n'
    scenario = load_scenario(write(tmp_path, text))
    assert scenario.faults[0].onset_us - scenario.start_us == 4 * 3_600_000_000
    assert scenario.faults[0].end_us - scenario.start_us == 24 * 3_600_000_000


FAULT = '[[fault]]\nmachine = "P-1"\nkind = "imbalance"\nonset = "1h"\n'


@pytest.mark.parametrize(
    ("text", "key", "says"),
    [
        ("x = [", "file", "not valid TOML"),
        ("", "site", "is missing"),
        (SITE.replace('"pump"', '"bump"'), "site[1].line[1].machine[1].class", "'bump' is not one of pump, fan"),
        (SITE.replace("count = 3", "count = 0"), "site[1].line[1].machine[1].count", "from 1 to 100000"),
        (SITE.replace("P-{n}", "P-x"), "site[1].line[1].machine[1].number", "must contain"),
        (SITE.replace("P-{n}", "P/{n}"), "site[1].line[1].machine[1].number", "cannot be a topic level"),
        (SITE.replace('"F-1"', '"P-2"'), "site[1].line[1].machine[2].number", "used twice"),
        (SITE + SITE, "site[2].name", "is a site already"),
        ("perod = 5\n" + SITE, "perod", "is not known here; allowed are"),
        ("period = 7\n" + SITE, "period", "divide 15 minutes"),
        ('period = "soon"\n' + SITE, "period", "is not a duration"),
        ("seed = 1.5\n" + SITE, "seed", "whole number"),
        ('signals = ["heat"]\n' + SITE, "signals", "'heat' is not one of temperature"),
        ('model = "magic"\n' + SITE, "model", "'magic' is not one of physics, reference"),
        ('start = "yesterday"\n' + SITE, "start", "must be an instant"),
        ('include = ["nothing"]\n' + SITE, "include", "There is no scenario 'nothing'"),
        ("[class.pump]\nspeed = 3\n" + SITE, "class.pump.speed", "is not known here"),
        ("[class.pump]\nno_load_share = 3\n" + SITE, "class.pump.no_load_share", "from 0 to 0.9"),
        ("[class.pump]\nload_levels = []\n" + SITE, "class.pump.load_levels", "one per product"),
        (SITE + FAULT.replace("imbalance", "wobble"), "fault[1].kind", "'wobble' is not one of bearing_outer"),
        (SITE + FAULT.replace("P-1", "P-9"), "fault[1].machine", "'P-9' is not one of P-1, P-2, P-3, F-1"),
        (SITE + FAULT + 'growth = "slow"\n', "fault[1].growth", "'slow' is not one of step, linear"),
        (SITE + FAULT + 'end = "30min"\n', "fault[1].end", "must be after onset"),
        (SITE + FAULT + "peak = 2\n", "fault[1].peak", "from 0 to 1"),
        (SITE + FAULT.replace('onset = "1h"\n', ""), "fault[1].onset", "is missing: a duration"),
        (SITE + FAULT.replace("imbalance", "cavitation").replace("P-1", "F-1"), "fault[1].kind", "only to pump"),
        (
            SITE + '[[sensor_fault]]\nmachine = "P-1"\nsignal = "speed"\nkind = "stuck"\nonset = 0\n',
            "sensor_fault[1].signal",
            "'speed' is not one of temperature, vibration, current, *",
        ),
        (
            SITE + '[[sensor_fault]]\nmachine = "P-1"\nsignal = "current"\nkind = "stick"\nonset = 0\n',
            "sensor_fault[1].kind",
            "'stick' is not one of stuck",
        ),
        (
            SITE + '[[disturbance]]\nkind = "storm"\nat = 0\n',
            "disturbance[1].kind",
            "'storm' is not one of load_step",
        ),
        (SITE + '[[disturbance]]\nkind = "missing"\nat = 0\nsize = 5\n', "disturbance[1].size", "from 0 to 1"),
        (
            SITE + '[[disturbance]]\nkind = "power_dip"\nsite = "b"\nat = 0\n',
            "disturbance[1].site",
            "'b' is not one of a",
        ),
        ('[[site]]\nname = "a"\n', "site[1].line", "at least one"),
        ('[[site]]\nname = "a"\n[[site.line]]\nname = "l"\n', "site[1].line[1].machine", "at least one"),
        ("site = 3\n", "site", "list of tables"),
        (SITE.replace('name = "a"', 'name = "a"\nutc_offset_h = 40'), "site[1].utc_offset_h", "from -12 to 14"),
    ],
)
def test_a_wrong_file_is_told_file_key_and_remedy(tmp_path, text, key, says):
    path = write(tmp_path, text)
    with pytest.raises(ScenarioWrong) as caught:
        load_scenario(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: {key}: ")
    assert says in message


def test_a_circle_of_inclusions_ends(tmp_path):
    write(tmp_path, 'include = ["b.toml"]\n', "a.toml")
    path = write(tmp_path, 'include = ["a.toml"]\n', "b.toml")
    with pytest.raises(ScenarioWrong, match="goes in a circle"):
        load_scenario(path)


def test_a_machine_number_in_two_sites_needs_its_site(tmp_path):
    text = SITE + SITE.replace('name = "a"', 'name = "b"') + FAULT
    with pytest.raises(ScenarioWrong, match="stands in several sites; add site = one of a, b"):
        load_scenario(write(tmp_path, text))
    scenario = load_scenario(write(tmp_path, text + 'site = "b"\n'))
    assert scenario.faults[0].site == "b"


def test_a_pattern_names_many(tmp_path):
    scenario = load_scenario(write(tmp_path, SITE + FAULT.replace("P-1", "P-*")))
    assert [f.machine for f in scenario.faults] == ["P-1", "P-2", "P-3"]


def test_an_unknown_scenario_is_told_the_names():
    with pytest.raises(ScenarioWrong, match=r"There is no scenario 'nope'; choose one of bearing-wear, .*quiet-day"):
        load_scenario("nope")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("1.5h", 5400),
        ("2d12h", 216_000),
        ("2d 12h", 216_000),
        ("45min", 2700),
        ("250ms", 0.25),
        (7, 7),
        ("8", 8),
        ("-1h", -3600),
        ("1w", 604_800),
    ],
)
def test_durations(text, seconds):
    assert parse_duration_s(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "h", "3 fortnights", "1h-2m", "1h 2", None, True, float("nan"), "1,5h"])
def test_no_durations(text):
    with pytest.raises(DurationWrong):
        parse_duration_s(text)


@pytest.mark.parametrize(
    ("period_s", "fits"),
    [(1, True), (7, False), (0.1, True), (0.0005, False), (11, False), (3600, True), (86_400, True), (172_800, False)],
)
def test_periods(period_s, fits):
    assert period_fits(period_s) is fits


def test_changes_on_the_command_line_are_checked():
    scenario = load_scenario("quiet-day")
    with pytest.raises(SignalUnknown, match="no signal 'heat'; choose from temperature"):
        scenario.with_signals(("heat",))
    with pytest.raises(PeriodWrong, match=r"7\.0 s does not fit"):
        scenario.with_period(7.0)
