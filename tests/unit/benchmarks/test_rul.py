import numpy as np
import pytest

from benchmarks import rul


def table():
    rng = np.random.default_rng(0)
    rows = [[unit, cycle, 0.1, 0.2, 100.0, *rng.normal(size=21)] for unit in (1, 2) for cycle in range(1, 5 + unit)]
    return np.array(rows)


def test_both_layouts_read_alike(tmp_path):
    rows = table()
    commas, blanks = tmp_path / "commas", tmp_path / "blanks"
    commas.mkdir()
    blanks.mkdir()
    header = ",".join(["unit", "cycle", "op1", "op2", "op3", *[f"s{k}" for k in range(1, 22)]])
    np.savetxt(commas / "train_FD001.csv", rows, delimiter=",", header=header, comments="")
    np.savetxt(blanks / "train_FD001.txt", rows, delimiter=" ")
    first, second = (rul.engines(rul.read_table(folder, "train_FD001")) for folder in (commas, blanks))
    assert [len(engine) for engine in first] == [5, 6]
    assert first[0].shape == (5, 21)
    assert all((a == b).all() for a, b in zip(first, second, strict=True))


def test_true_values_of_the_original_have_no_header(tmp_path):
    (tmp_path / "RUL_FD001.txt").write_text("112 \n98 \n")
    assert rul.read_table(tmp_path, "RUL_FD001").tolist() == [112, 98]
    (tmp_path / "RUL_FD001.csv").write_text("rul\n7\n8\n")
    assert rul.read_table(tmp_path, "RUL_FD001").tolist() == [7, 8]


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(SystemExit, match=r"neither train_FD001\.csv nor train_FD001\.txt"):
        rul.read_table(tmp_path, "train_FD001")


def test_the_nasa_score_punishes_late_estimates_more():
    assert rul.nasa_score(np.array([0.0])) == 0
    assert rul.nasa_score(np.array([-13.0])) == pytest.approx(np.e - 1)
    assert rul.nasa_score(np.array([10.0])) == pytest.approx(np.e - 1)


def test_two_kinds_of_count_must_agree(tmp_path):
    np.savetxt(tmp_path / "train_FD001.txt", table())
    np.savetxt(tmp_path / "test_FD001.txt", table())
    (tmp_path / "RUL_FD001.txt").write_text("1\n2\n3\n")
    with pytest.raises(SystemExit, match="3 true values for 2 test engines"):
        rul.run(["--data", str(tmp_path)])
