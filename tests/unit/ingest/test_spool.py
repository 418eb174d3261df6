"""Whatever a crash leaves of the spool's files, every message that was on the disk comes back, in order."""

import errno
import os
import shutil

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest import spool as module
from ingest.spool import Spool, Spooled, SpoolFull, SpoolInUse, encode

MANY = 1 << 30


def _messages(n, *, size=20, start=0):
    return [Spooled(f"t/{i}".encode(), bytes([i % 256]) * size, 1_000_000 + i, i % 3 == 0, "text/x" * (i % 2)) for i in range(start, start + n)]  # fmt: skip


def _drain(spool, *, most=7):
    found = []
    while spool.messages:
        some, position = spool.read(most=most)
        assert some
        found += some
        spool.settle(position, len(some))
    assert spool.read(most=most)[0] == []
    return found


def test_messages_come_back_as_they_went_in_after_a_restart(tmp_path):
    spool = Spool(tmp_path, max_bytes=MANY)
    spool.append(_messages(10))
    spool.append(_messages(15, start=10))
    spool.close()
    spool = Spool(tmp_path, max_bytes=MANY)
    assert spool.messages == 25
    assert _drain(spool) == _messages(25)
    spool.append(_messages(3))
    assert _drain(spool) == _messages(3)
    spool.close()


def test_what_is_settled_does_not_come_back_and_its_segments_go(tmp_path):
    spool = Spool(tmp_path, max_bytes=MANY, segment_bytes=500)
    for i in range(10):
        spool.append(_messages(5, start=5 * i))
    assert len(list(tmp_path.glob("*.spool"))) > 3
    found, position = spool.read(most=8)
    spool.settle(position, len(found))
    spool.close()
    spool = Spool(tmp_path, max_bytes=MANY, segment_bytes=500)
    assert found + _drain(spool) == _messages(50)
    assert list(tmp_path.glob("*.spool")) == []
    spool.close()


def test_a_kill_at_every_byte_of_a_write_loses_only_what_was_never_acknowledged(tmp_path):
    """The write of the second group is cut at every offset; the first group was synced, so it must come back whole."""
    spool = Spool(tmp_path / "whole", max_bytes=MANY)
    spool.append(_messages(4))
    path = next((tmp_path / "whole").glob("*.spool"))
    synced = path.stat().st_size
    spool.append(_messages(4, start=4))
    spool.close()
    data = path.read_bytes()
    ends, at = [], synced
    for message in _messages(4, start=4):
        at += len(encode(message))
        ends.append(at)
    for cut in range(synced, len(data) + 1):
        folder = tmp_path / "cut"
        folder.mkdir()
        (folder / path.name).write_bytes(data[:cut])
        spool = Spool(folder, max_bytes=MANY)
        expected = 4 + sum(end <= cut for end in ends)
        assert spool.damaged == 0
        spool.append(_messages(2, start=90))  # and it goes on
        assert _drain(spool) == _messages(expected) + _messages(2, start=90), cut
        spool.close()
        shutil.rmtree(folder)


def test_a_kill_before_the_first_frame_leaves_a_spool_that_opens(tmp_path):
    for cut in range(17):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "000000000001.spool").write_bytes(module._MAGIC[:cut])
        spool = Spool(folder, max_bytes=MANY)
        assert spool.messages == 0
        spool.append(_messages(1))
        assert _drain(spool) == _messages(1)
        spool.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damage_in_the_middle_costs_the_messages_it_hits_and_no_other(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, max_bytes=MANY)
    messages = _messages(12, size=data.draw(st.integers(0, 60)))
    spool.append(messages)
    spool.close()
    path = next(folder.glob("*.spool"))
    raw = bytearray(path.read_bytes())
    victim = data.draw(st.integers(0, 10))  # not the last: damage there looks like a torn tail
    start = 16 + sum(len(encode(m)) for m in messages[:victim])
    at = data.draw(st.integers(start, start + len(encode(messages[victim])) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(raw)
    spool = Spool(folder, max_bytes=MANY)
    assert spool.damaged == 1
    assert len(list(folder.glob("damaged-*.bin"))) == 1
    assert _drain(spool) == messages[:victim] + messages[victim + 1 :]
    spool.close()


def test_damage_found_while_reading_is_set_aside_too(tmp_path):
    spool = Spool(tmp_path, max_bytes=MANY)
    spool.append(_messages(6))
    path = next(tmp_path.glob("*.spool"))
    with path.open("r+b") as file:
        file.seek(20)
        file.write(b"\xff\xff\xff")
    assert _drain(spool) == _messages(5, start=1)
    assert spool.damaged == 1
    spool.append(_messages(1))
    assert _drain(spool) == _messages(1)
    spool.close()


def test_a_full_spool_takes_nothing_more_and_keeps_what_it_has(tmp_path):
    spool = Spool(tmp_path, max_bytes=1000)
    with pytest.raises(SpoolFull, match="0 MB is its limit"):
        for i in range(100):
            spool.append(_messages(1, start=i))
    held = spool.messages
    assert 0 < held < 100
    assert _drain(spool) == _messages(held)
    spool.append(_messages(1))
    spool.close()


@pytest.mark.parametrize("call", ["write", "fdatasync"])
def test_a_disk_that_fails_takes_nothing_and_the_next_write_is_sound(tmp_path, monkeypatch, call):
    spool = Spool(tmp_path, max_bytes=MANY)
    spool.append(_messages(3))
    real = getattr(os, call)

    def fail(file, *rest):
        if call == "write":
            real(file, bytes(rest[0])[:11])  # some of it gets through
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(SpoolFull, match="No space left"):
        spool.append(_messages(3, start=3))
    monkeypatch.setattr(os, call, real)
    spool.append(_messages(3, start=6))
    spool.close()
    spool = Spool(tmp_path, max_bytes=MANY)
    assert spool.damaged == 0
    assert _drain(spool) == _messages(3) + _messages(3, start=6)
    spool.close()


def test_two_processes_cannot_share_a_spool(tmp_path):
    spool = Spool(tmp_path, max_bytes=MANY)
    with pytest.raises(SpoolInUse):
        Spool(tmp_path, max_bytes=MANY)
    spool.close()
    Spool(tmp_path, max_bytes=MANY).close()


def test_a_large_message_is_read_in_one_piece(tmp_path):
    spool = Spool(tmp_path, max_bytes=MANY)
    large = Spooled(b"t", os.urandom(9 << 20), 1)
    spool.append([large])
    assert _drain(spool) == [large]
    spool.close()
