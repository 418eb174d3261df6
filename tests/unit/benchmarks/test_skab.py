import numpy as np
import pytest

from benchmarks import corpus, skab


def write(path, rows, *, labelled=True, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    header = ["datetime", *[f"channel {k}" for k in range(channels)], *(["anomaly", "changepoint"] if labelled else [])]
    lines = [";".join(header)]
    for row in range(rows):
        faulty = 500 <= row < 600
        values = rng.normal(size=channels) + (8.0 if faulty and labelled else 0.0)
        stamp = f"2020-03-09 {10 + row // 3600:02}:{row // 60 % 60:02}:{row % 60:02}"
        marks = [str(float(faulty)), str(float(row in {500, 600}))] if labelled else []
        lines.append(";".join([stamp, *[f"{value:.6f}" for value in values], *marks]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def test_any_group_and_any_channel_names_are_judged(tmp_path, capsys):
    write(tmp_path / "valve2" / "0.csv", 700)
    write(tmp_path / "other" / "11.csv", 700, channels=2, seed=1)
    write(tmp_path / "anomaly-free" / "anomaly-free.csv", 3800, labelled=False, seed=2)
    result = skab.run(["--data", str(tmp_path), "--quick"])
    assert result["files"] == 2
    assert result["groups"] == ["other", "valve2"]
    assert result["f1"] > 0.8
    assert result["events_found_share"] == 1
    assert result["healthy_run_tickets"] == 0
    assert {"far_pct", "mar_pct", "median_delay_s", "false_tickets_per_hour", "nab_standard"} <= set(result)
    assert "always alarm" in capsys.readouterr().out


def test_a_folder_of_one_group_is_taken_as_it_is(tmp_path):
    write(tmp_path / "3.csv", 700)
    faulty, healthy = skab.read_folder(tmp_path)
    assert len(faulty) == 1
    assert healthy == []
    assert faulty[0].rows.shape == (700, 3)
    assert faulty[0].at[1] - faulty[0].at[0] == 1_000_000
    assert faulty[0].test.changes.sum() == 2


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("timestamp,value\n2020-01-01,1\n")
    with pytest.raises(SystemExit, match="expected datetime"):
        skab.read(tmp_path / "x.csv")


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="no CSV files"):
        skab.read_folder(tmp_path)


def test_a_missing_folder_ends_with_status_3_and_its_name(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        corpus.data_folder("skab", tmp_path / "nowhere")
    assert stopped.value.code == 3
    assert "nowhere" in capsys.readouterr().out
