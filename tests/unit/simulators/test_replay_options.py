"""What `fettle replay` refuses before it looks for a broker."""

import numpy as np
import pytest

from fettle.cli import main
from simulators.broker import BrokerAddress
from simulators.recording import read_recording
from simulators.replay import BeyondTheEnd, publish_recording


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "run.csv"
    file.write_text("when,a\n2026-01-01T00:00:00Z,1\n2026-01-01T00:00:01Z,2\n")
    return file


@pytest.mark.parametrize("speed", ["nan", "inf", "-1", "-inf"])
def test_a_speed_that_is_none(path, capsys, speed):
    assert main(["replay", str(path), "--time-column", "when", "--machine", "m1", f"--speed={speed}"]) == 2
    assert f"--speed {float(speed):g}: must be a number, 0 or more" in capsys.readouterr().err


def test_a_line_before_the_first(path, capsys):
    assert main(["replay", str(path), "--time-column", "when", "--machine", "m1", "--from-line=-1"]) == 2
    assert "--from-line -1" in capsys.readouterr().err


def test_a_line_behind_the_last_is_an_error_and_not_a_replay_of_nothing(path):
    recording = read_recording(path, time_column="when")
    assert np.array_equal(recording.lines, [2, 3])
    with pytest.raises(BeyondTheEnd, match=r"no row on line 4 or after it: its last row is on line 3"):
        publish_recording(
            recording, address=BrokerAddress(host="127.0.0.1", port=1), tenant="t", site="s", machine="m", units={}, names={},
            speed=0, from_line=4,
        )  # fmt: skip
