import numpy as np
import pytest

from benchmarks import cwru


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("normal_0", "normal"),
        ("Healthy", "normal"),
        ("IR007_0", "inner"),
        ("inner_race_2", "inner"),
        ("0.007-InnerRace", "inner"),
        ("OR007_6_0", "outer"),
        ("OR007@6_2", "outer"),
        ("B007_0", "ball"),
        ("ball_1", "ball"),
        ("acceleration", ""),
        ("DE_time", ""),
        ("sensor", ""),
    ],
)
def test_the_condition_is_read_from_the_name(name, kind):
    assert cwru.kind_of(name) == kind


@pytest.mark.parametrize(("name", "rpm"), [("IR007_0", 1797), ("OR007@6_3", 1730), ("normal", None), ("97", None)])
def test_the_load_at_the_end_of_a_name_gives_the_speed(name, rpm):
    assert cwru.rpm_of(name) == rpm


def write(path, header, *columns):
    np.savetxt(path, np.column_stack(columns), delimiter=",", header=header, comments="")
    return path


def test_a_file_of_named_columns_is_several_recordings(tmp_path):
    time, wave = np.arange(200) / 12_000, np.zeros(200)
    path = write(tmp_path / "waves.csv", "t_s,normal_1,IR007_1", time, wave, wave)
    recordings = list(cwru.read(path, rate_hz=1.0, rpm=None))
    assert [(one.name, one.kind, one.rate_hz, one.rpm) for one in recordings] == [
        ("normal_1", "normal", 12_000.0, 1772.0),
        ("IR007_1", "inner", 12_000.0, 1772.0),
    ]


def test_a_file_of_one_recording_takes_name_speed_and_rate_from_what_it_has(tmp_path):
    wave = np.zeros(200)
    path = write(tmp_path / "OR007_2.csv", "DE_time,FE_time,RPM", wave, wave + 1, wave + 1750)
    (one,) = cwru.read(path, rate_hz=48_000.0, rpm=None)
    assert (one.name, one.kind, one.rate_hz, one.rpm) == ("OR007_2", "outer", 48_000.0, 1750.0)
    assert (one.waveform == 0).all()


def test_an_argument_gives_the_speed_where_no_column_does(tmp_path):
    path = write(tmp_path / "x.csv", "a", np.zeros(200))
    (one,) = cwru.read(path, rate_hz=12_000.0, rpm=1760.0)
    assert (one.kind, one.rpm) == ("", 1760.0)


def test_two_unnamed_columns_are_refused(tmp_path):
    path = write(tmp_path / "x.csv", "a,c", np.zeros(200), np.zeros(200))
    with pytest.raises(SystemExit, match=r"columns \['a', 'c'\]"):
        list(cwru.read(path, rate_hz=12_000.0, rpm=None))


def test_a_folder_is_judged_with_a_table(tmp_path, capsys):
    rng = np.random.default_rng(0)
    time = np.arange(24_000) / 12_000
    noise = rng.normal(size=24_000) * 0.1
    struck = noise.copy()
    for strike in np.arange(0, 2, 1 / (5.4152 * 1797 / 60)):
        ring = (time >= strike) & (time < strike + 0.01)
        struck[ring] += np.exp(-(time[ring] - strike) * 800) * np.sin(2 * np.pi * 3200 * (time[ring] - strike))
    write(tmp_path / "normal_0.csv", "acceleration_g", noise)
    write(tmp_path / "IR007_0.csv", "acceleration_g", struck)
    write(tmp_path / "B007_0.csv", "acceleration_g", noise[::-1] * 4)
    result = cwru.run(["--data", str(tmp_path)])
    assert (result["inner_named"], result["inner_files"], result["normal_named"], result["ball_unspecified"]) == (
        1,
        1,
        0,
        1,
    )
    assert [row["named"] for row in result["table"]] == ["bearing, unspecified", "inner race", "nothing"]
    assert "IR007_0" in capsys.readouterr().out


def test_an_unknown_speed_is_tried_at_every_nominal_one(tmp_path):
    time = np.arange(24_000) / 12_000
    wave = np.random.default_rng(1).normal(size=24_000) * 0.1
    for strike in np.arange(0, 2, 1 / (3.5848 * 1730 / 60)):
        ring = (time >= strike) & (time < strike + 0.01)
        wave[ring] += np.exp(-(time[ring] - strike) * 800) * np.sin(2 * np.pi * 3200 * (time[ring] - strike))
    verdict, rpm = cwru.name(cwru.Recording("x", "outer", wave, 12_000.0, None))
    assert verdict.race == cwru.RACE_OF["outer"]
    assert rpm in {1730, 1750}  # 1.1 % apart, within the slip looked for
