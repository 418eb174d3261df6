"""Every error of the database has one consequence, and none of them drops a batch."""

import pytest

from ingest.poison import read_line
from ingest.sqlstate import Action, classify

TABLE = {
    Action.RECONNECT: [None, "08000", "08006", "57P01", "57P02", "57P03", "57P05", "25006"],
    Action.RETRY: ["40001", "40P01", "55P03", "57014"],
    Action.HOLD: ["53000", "53100", "53200", "53300", "58000", "58030"],
    Action.LATE: ["53400"],
    Action.CONFLICT: ["23505"],
    Action.PARTITION: ["23514"],
    Action.POISON: ["22008", "22021", "22P02", "22P05", "22003"],
    Action.RELOAD: ["23502", "23503"],
    Action.HALT: ["22P03", "22P04", "21000", "42501", "42P01", "42703", "3D000", "3F000", "28P01", "0A000", "XX000", "XX001", "XX002"],
    Action.UNKNOWN: ["P0001", "2BP01", "HV000"],
}  # fmt: skip


@pytest.mark.parametrize(("action", "states"), TABLE.items())
def test_classes_of_errors(action, states):
    assert {classify(state) for state in states} == {action}


def test_a_check_is_poison_and_a_missing_partition_is_not():
    assert classify("23514", constraint="reading_value_check") is Action.POISON
    assert classify("23514", constraint=None) is Action.PARTITION


@pytest.mark.parametrize(
    ("context", "row"),
    [
        ("COPY reading, line 7777, column ts", 7776),
        ("COPY reading, line 1", 0),
        ("COPY reading, Zeile 12, Spalte value", 11),
        ("COPY reading，第 7 行", 6),
        ('COPY _hyper_1_2_chunk, line 3: "9,8"', 2),
        ('SQL statement "SELECT 1"', None),
        ("", None),
        (None, None),
    ],
)  # fmt: skip
def test_the_row_at_fault_is_read_in_any_language(context, row):
    assert read_line(context) == row
