"""Messages on this machine's disk while the database is away, so that the broker can be told they are safe.

Append-only segments of frames; a frame is `length, CRC-32, body`, and the body is the message as it came, not rows, so that
a later version of a codec applies to what is replayed. `append` returns once everything is on the disk: only then may
the messages be acknowledged. What a crash cut off at the end was never acknowledged and is cut off when the spool is opened;
damage anywhere else is set aside and counted, and never keeps the rest from being read.

    000000000001.spool  000000000002.spool …   position (what has been stored)   damaged-….bin   lock
"""

import fcntl
import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import orjson

from fettle import logs
from fettle.errors import FettleError
from ingest.frames import Frames

log = logs.get("ingest")

_MAGIC = b"FTLSPOOL\x01\x00\x00\x00\x00\x00\x00\x00"
_FRAME = struct.Struct("<II")  # length of the body, CRC-32 of the body
_BODY = struct.Struct("<qBHH")  # received, retained, lengths of topic and content type
_HEAD = struct.Struct("<IIqBHH")  # both
_SEGMENT_BYTES = 64 << 20
_LARGEST_FRAME = 32 << 20
_TYPICAL_FRAME = 400  # bytes to read for each message that is wanted
_NO_POSITION = (0, 0)


class SpoolFull(FettleError):
    """The spool in {folder} takes no more ({why}). Nothing more is acknowledged until the database is back or there is room; see FETTLE_COLLECTOR_SPOOL_MAX_MB."""


class SpoolInUse(FettleError):
    """The spool in {folder} belongs to another running collector. Give each its own FETTLE_DATA_DIR or FETTLE_COLLECTOR_NAME."""


class Spooled(NamedTuple):
    """One message as it came."""

    topic: bytes
    payload: bytes
    received_us: int
    is_retained: bool = False
    content_type: str = ""


class Position(NamedTuple):
    """Up to where messages have been stored: a segment and an offset in it."""

    segment: int
    offset: int


@dataclass(slots=True)
class _Segment:
    number: int
    path: Path
    size: int
    messages: int = 0


def encode(message: Spooled) -> bytes:
    content_type = message.content_type.encode()[:65_535]
    head = _BODY.pack(message.received_us, message.is_retained, len(message.topic), len(content_type))
    body = b"".join((head, message.topic, content_type, message.payload))
    return _FRAME.pack(len(body), zlib.crc32(body)) + body


def decode_body(body: bytes) -> Spooled:
    received_us, is_retained, topic, content_type = _BODY.unpack_from(body)
    at = _BODY.size + topic
    payload = at + content_type
    return Spooled(body[_BODY.size : at], body[payload:], received_us, bool(is_retained), body[at:payload].decode())


def read_frame(data: bytes | memoryview, at: int) -> tuple[Spooled, int] | None:
    """Return the message at an offset and where it ends, or None where there is no whole, sound frame."""
    if at + _FRAME.size > len(data):
        return None
    length, checksum = _FRAME.unpack_from(data, at)
    end = at + _FRAME.size + length
    if not _BODY.size <= length <= _LARGEST_FRAME or end > len(data):
        return None
    body = bytes(data[at + _FRAME.size : end])
    if zlib.crc32(body) != checksum:
        return None
    try:
        return decode_body(body), end
    except UnicodeDecodeError:
        return None


class Spool:
    """The spool of one collector. Every method blocks and belongs to one thread."""

    def __init__(self, folder: Path, *, max_bytes: int, segment_bytes: int = _SEGMENT_BYTES) -> None:
        """Open the spool, and make it sound.

        Raises:
            SpoolInUse: another process has it open.
        """
        self.folder = folder
        self.max_bytes = max_bytes
        self.damaged = 0  # spans set aside since the start
        self._segment_bytes = segment_bytes
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._lock)
            raise SpoolInUse(folder=folder) from None
        self._file: int | None = None
        self._read_at = self._load_position()
        self._segments: list[_Segment] = []
        self._recover()

    @property
    def size_bytes(self) -> int:
        return sum(segment.size for segment in self._segments)

    @property
    def messages(self) -> int:
        """Messages not yet stored."""
        return sum(segment.messages for segment in self._segments)

    def close(self) -> None:
        self._close_file()
        os.close(self._lock)

    def _close_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # writing

    def append(self, messages: Sequence[Spooled]) -> None:
        """Write messages and return when they are on the disk.

        Raises:
            SpoolFull: the limit is reached, or the disk takes no more; none of the messages may be acknowledged.
        """
        data = b"".join(encode(message) for message in messages)
        if self.size_bytes + len(data) > self.max_bytes:
            raise SpoolFull(folder=self.folder, why=f"{self.max_bytes >> 20} MB is its limit")
        try:
            if self._file is None or self._segments[-1].size + len(data) > self._segment_bytes:
                self._begin_segment()
            segment = self._segments[-1]
            assert self._file is not None
            _write_all(self._file, data)
            os.fdatasync(self._file)
        except OSError as error:
            self._give_up_segment()
            raise SpoolFull(folder=self.folder, why=error.strerror or str(error)) from error
        segment.size += len(data)
        segment.messages += len(messages)

    def _begin_segment(self) -> None:
        self._close_file()
        number = self._segments[-1].number + 1 if self._segments else max(self._read_at.segment, 0) + 1
        path = self.folder / f"{number:012d}.spool"
        self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._segments.append(_Segment(number, path, len(_MAGIC)))
        _write_all(self._file, _MAGIC)
        self._sync_folder()

    def _give_up_segment(self) -> None:
        """After a failed write: cut off what may be half there, and begin a new segment next time."""
        if self._file is None:
            return
        try:
            os.ftruncate(self._file, self._segments[-1].size)
        except OSError as error:
            log.warning("spool.cannot_truncate", why=str(error))
        self._close_file()

    # reading

    def read(self, *, most: int) -> tuple[list[Spooled], Position]:
        """Return the oldest messages that are not stored yet, and the position to `settle` once they are."""
        for segment in list(self._segments):
            start = self._read_at.offset if segment.number == self._read_at.segment else len(_MAGIC)
            found, end = _read_some(segment, start, most)
            if not found and segment.messages:  # damaged since it was opened: set the damage aside, and go on behind it
                self._close_file()
                segment.messages, segment.size = self._mend(segment.path, segment.number, is_last=False)
                found, end = _read_some(segment, len(_MAGIC), most)
            if found:
                return found, Position(segment.number, end)
        return [], self._read_at

    def settle(self, position: Position, stored: int) -> None:
        """Remember that everything before `position` is stored, and remove segments that are."""
        self._read_at = position
        done = [s for s in self._segments if s.number < position.segment]
        last = self._segments[-1]
        if last.number == position.segment and position.offset >= last.size:
            done = list(self._segments)
            self._close_file()
            self._read_at = Position(last.number + 1, len(_MAGIC))
        self._save_position()
        for segment in self._segments:
            if segment.number == position.segment:
                segment.messages -= stored
        for segment in done:
            segment.path.unlink(missing_ok=True)
            self._segments.remove(segment)

    # opening

    def _load_position(self) -> Position:
        try:
            body = orjson.loads((self.folder / "position").read_bytes())
            return Position(int(body["segment"]), int(body["offset"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return Position(*_NO_POSITION)  # replaying from the start stores nothing twice

    def _save_position(self) -> None:
        temporary = self.folder / "position.new"
        with temporary.open("wb") as file:
            file.write(orjson.dumps(self._read_at._asdict()))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.folder / "position")
        self._sync_folder()

    def _recover(self) -> None:
        paths = sorted(self.folder.glob("*.spool"))
        for path in paths:
            number = int(path.stem)
            if number < self._read_at.segment:
                path.unlink()
                continue
            segment = _Segment(number, path, 0)
            segment.messages, segment.size = self._mend(path, number, is_last=path == paths[-1])
            if segment.messages:
                self._segments.append(segment)
            else:
                path.unlink()
        if self.messages:
            log.info("spool.found", messages=self.messages, bytes=self.size_bytes)

    def _mend(self, path: Path, number: int, *, is_last: bool) -> tuple[int, int]:
        """Make one segment sound; return how many messages are still to be stored, and its size."""
        data = path.read_bytes()
        start = self._read_at.offset if number == self._read_at.segment else len(_MAGIC)
        if data[: len(_MAGIC)] != _MAGIC:
            start = 0
        messages, spans, end = scan(data, start)
        if spans or not messages:
            for low, high in spans:
                is_torn = is_last and high == len(data)
                if not is_torn:
                    self.damaged += 1
                    (self.folder / f"damaged-{number:012d}-{low}.bin").write_bytes(data[low:high])
                    log.error("spool.damaged", segment=path.name, offset=low, bytes=high - low)
            if any(high != len(data) for _, high in spans) or start == 0:
                self._rewrite(path, data, start)
                return messages, path.stat().st_size
        if end < len(data):
            with path.open("r+b") as file:
                file.truncate(end)
                os.fsync(file.fileno())
        return messages, end

    def _rewrite(self, path: Path, data: bytes, start: int) -> None:
        """Keep the sound frames of a segment alone."""
        if self._read_at.segment == int(
            path.stem
        ):  # first, so that a crash in between replays too much, not too little
            self._read_at = Position(self._read_at.segment, len(_MAGIC))
            self._save_position()
        temporary = path.with_suffix(".mended")
        with temporary.open("wb") as file:
            file.write(_MAGIC)
            for low, high in sound_spans(data, start):
                file.write(data[low:high])
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        self._sync_folder()

    def _sync_folder(self) -> None:
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _read_some(segment: _Segment, start: int, most: int) -> tuple[list[Spooled], int]:
    """Return up to `most` messages of a segment from an offset on, and where they end."""
    with segment.path.open("rb") as file:
        file.seek(start)
        data = file.read(min(segment.size - start, most * _TYPICAL_FRAME))
        if read_frame(data, 0) is None:  # one frame may be larger than a piece
            data += file.read(max(segment.size - start - len(data), 0))
    found: list[Spooled] = []
    at, last = 0, len(data) - _HEAD.size
    view = memoryview(data)
    while len(found) < most and at <= last:
        length, checksum, received_us, is_retained, topic_length, type_length = _HEAD.unpack_from(data, at)
        end = at + _FRAME.size + length
        topic = at + _HEAD.size
        content_type = topic + topic_length
        payload = content_type + type_length
        if payload > end or end > len(data) or zlib.crc32(view[at + _FRAME.size : end]) != checksum:
            break
        if type_length:
            frame = read_frame(data, at)
            if frame is None:
                break
            found.append(frame[0])
        else:
            found.append(Spooled(data[topic:content_type], data[payload:end], received_us, bool(is_retained)))
        at = end
    return found, start + at


def sound_spans(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of every sound frame; behind damage, look for the next one."""
    at = start
    while at < len(data):
        frame = read_frame(data, at)
        if frame is not None:
            yield at, frame[1]
            at = frame[1]
            continue
        # a damaged length says nothing: try every offset for a frame whose checksum is right
        at = next((k for k in range(at + 1, len(data) - _FRAME.size) if read_frame(data, k)), len(data))


def scan(data: bytes, start: int) -> tuple[int, list[tuple[int, int]], int]:
    """Return how many sound frames there are, the spans between them that are not, and where the last sound one ends."""
    messages, at, damaged = 0, start, []
    for low, high in sound_spans(data, start):
        if low > at:
            damaged.append((at, low))
        messages, at = messages + 1, high
    end = at
    if end < len(data):
        damaged.append((end, len(data)))
    return messages, damaged, end


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def as_frames(messages: Sequence[Spooled]) -> Frames:
    """Return spooled messages in the form in which they come from a broker; there is nothing to acknowledge."""
    frames = Frames()
    for i, message in enumerate(messages):
        frames.topics.append(message.topic)
        frames.payloads.append(message.payload)
        frames.ticks.append(message.received_us)
        if message.is_retained:
            frames.retained.add(i)
        if message.content_type:
            frames.content_types[i] = message.content_type
    return frames
