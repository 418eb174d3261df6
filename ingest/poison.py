"""Which row of a COPY the database refused, read from the error's context."""

import re

import psycopg

# "COPY reading, line 7777, column ts: …"; the words are translated with lc_messages, the comma and the number are not
_LINE = re.compile(r"^COPY [^,，、]+[,，、]\D*(\d+)")


def read_line(context: str | None) -> int | None:
    """Return the index, from 0, of the row that a COPY error's context names, or None.

    >>> read_line("COPY reading, line 7777, column ts"), read_line("SQL statement")
    (7776, None)
    """
    found = _LINE.search(context or "")
    return int(found[1]) - 1 if found else None


def find_row(error: psycopg.Error) -> int | None:
    """Return the index of the row at fault, if the error says."""
    return read_line(error.diag.context)
