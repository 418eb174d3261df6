"""A message without a time stamp that is read again, from the spool or after a refusal, says what it said when it came."""

import pytest

from ingest.batch import seal
from ingest.catalogue import Catalogue, RegistrationPolicy, Sensor
from ingest.decode import ClockPolicy
from ingest.desk import _as_messages
from ingest.frames import Frames
from ingest.intake import Intake
from ingest.spool import as_frames
from ingest.topics import load_table

NOW = 1_795_219_200_000_000
TABLE = load_table(tenant="default")
TIMED = b'{"ts":1795219200000,"value":1.5,"unit":"A"}'
READS = (
    ["x 1", "x 2", "y 3"],  # three in one breath
    ["x 4", "t", "x 5"],
    ["t"] * 9,  # together, the short way: they have a time and need no tick
    ["t", "x 6"],
)


def _intake():
    catalogue = Catalogue(RegistrationPolicy())
    for i, name in enumerate("xyt", 1):
        catalogue._sensors["default", ("s1", "m1", name)] = Sensor(i, "other", "", is_enabled=True)
    catalogue._sensors["default", ("s1", "m1", "t")] = Sensor(3, "current", "A", is_enabled=True)
    return Intake(TABLE, catalogue)


def _live():
    intake = _intake()
    for n, read in enumerate(READS):
        topics = [f"fettle/default/s1/m1/{word[0]}".encode() for word in read]
        payloads = [TIMED if word == "t" else word[2:].encode() for word in read]
        intake.take(Frames(topics=topics, payloads=payloads), NOW + n)
    return intake.take_batch()


def _rows(batch):
    return list(zip(batch.sensor_ids, batch.ts, batch.values, batch.owners, strict=True))


@pytest.mark.parametrize("attempts", [1, 2])
def test_what_the_spool_gives_back_has_the_times_it_had(attempts):
    """Also at the second attempt, where the database went away once more."""
    live = _live()
    replay = _intake()
    for _ in range(attempts):
        replay.take(as_frames(_as_messages(live)), NOW + 1_000_000)
        again = replay.take_batch()
    assert _rows(again) == _rows(live)
    assert len({row[1] for row in _rows(live) if row[0] == 1}) == 5


def test_a_time_that_is_clamped_is_clamped_to_the_same_moment_again():
    policy = ClockPolicy(future="clamp")
    ahead = b'{"ts":%d,"value":1.5,"unit":"A"}' % (NOW // 1000 + 86_400_000)
    intake, replay = _intake(), _intake()
    spooled = []
    for n in range(3):
        intake.take(Frames(topics=[b"fettle/default/s1/m1/t"], payloads=[ahead]), NOW + n)
        live = intake.take_batch()
        spooled += _as_messages(live)
        assert seal(live, policy=policy).rows["ts"].tolist() == [NOW + n]
    for _ in range(2):  # at first it knows no topic, then it reads them the short way
        replay.take(as_frames(spooled), NOW + 2)
        assert seal(replay.take_batch(), policy=policy).rows["ts"].tolist() == [NOW, NOW + 1, NOW + 2]
