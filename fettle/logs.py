"""Log events: a dotted name and fields, never a value formatted into the message.

log = logs.get("ingest")
log.info("batch.stored", rows=1000, seconds=0.012)
"""

import json
import logging
import sys
from typing import Literal

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


class EventLog:
    """Writes events of one part of the program through the standard library's logging."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def _write(self, level: int, event: str, fields: dict[str, object], *, traceback: bool = False) -> None:
        if self._logger.isEnabledFor(level):
            self._logger.log(level, event, extra={"fields": fields}, exc_info=traceback)

    def debug(self, event: str, **fields: object) -> None:
        self._write(logging.DEBUG, event, fields)

    def info(self, event: str, **fields: object) -> None:
        self._write(logging.INFO, event, fields)

    def warning(self, event: str, **fields: object) -> None:
        self._write(logging.WARNING, event, fields)

    def error(self, event: str, **fields: object) -> None:
        self._write(logging.ERROR, event, fields)

    def exception(self, event: str, **fields: object) -> None:
        """Log an error together with the traceback of the exception being handled."""
        self._write(logging.ERROR, event, fields, traceback=True)


def _plain(value: object) -> object:
    """Quote what could be taken for more than one field or line: blanks, quotes, line breaks."""
    if isinstance(value, str) and (not value.isprintable() or " " in value or '"' in value):
        return json.dumps(value, ensure_ascii=not value.isprintable())
    return value


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = getattr(record, "fields", {})
        words = [self.formatTime(record, "%H:%M:%S"), record.levelname.lower(), record.name, record.getMessage()]
        words += [f"{key}={_plain(value)}" for key, value in fields.items()]
        line = " ".join(words)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        body = {
            "at": record.created,
            "level": record.levelname.lower(),
            "from": record.name,
            "event": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            body["traceback"] = self.formatException(record.exc_info)
        return json.dumps(body, default=str, ensure_ascii=False)


def get(part: str) -> EventLog:
    return EventLog(logging.getLogger(f"fettle.{part}"))


def configure(*, level: Literal["debug", "info", "warning", "error"], form: Literal["text", "json"]) -> None:
    """Send events to standard error. Called once, by the command line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("fettle").setLevel(_LEVELS[level])
