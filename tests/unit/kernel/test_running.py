"""One supervisor per data folder, and addresses that are believed only while it lives."""

import fcntl

import pytest

from fettle import running
from fettle.settings import Settings

ADDRESSES = running.Running(1, "postgresql://localhost/fettle", "127.0.0.1", 1883, "mosquitto", "http://127.0.0.1:8000")


@pytest.fixture
def settings(tmp_path):
    return Settings(data_dir=tmp_path / "data")


def test_addresses_are_found_while_the_folder_is_held(settings):
    with running.hold(settings):
        assert running.find(settings) is None  # nothing announced yet
        running.announce(settings, ADDRESSES)
        assert running.find(settings) == ADDRESSES
    assert running.find(settings) is None


def test_what_a_killed_supervisor_left_is_not_believed_even_if_its_process_number_lives_again(settings):
    settings.data_dir.mkdir()
    running.announce(settings, ADDRESSES)  # process 1 always lives
    assert running.find(settings) is None
    (settings.data_dir / "lock").touch()
    assert running.find(settings) is None
    with running.hold(settings):
        assert running.find(settings) is None


def test_a_second_supervisor_is_told_who_holds_the_folder(settings):
    with running.hold(settings):
        with pytest.raises(running.AlreadyRunning, match="it is starting"), running.hold(settings):
            pass
        running.announce(settings, ADDRESSES)
        with (
            pytest.raises(running.AlreadyRunning, match=r"process 1, http://127\.0\.0\.1:8000"),
            running.hold(settings),
        ):
            pass
    with running.hold(settings):
        pass


def test_a_verb_that_looks_does_not_take_the_folder(settings):
    with running.hold(settings):
        running.announce(settings, ADDRESSES)
        assert running.join(settings).broker_port == 1883
        with (settings.data_dir / "lock").open() as lock, pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(running.FolderRefused, match="FETTLE_DATA_DIR"),
        running.hold(Settings(data_dir=tmp_path / "file")),
    ):
        pass
