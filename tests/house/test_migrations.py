"""A migration that has landed never changes: databases out there have applied it."""

from pathlib import Path

from fettle.migrate import read_migrations

FROZEN = Path(__file__).with_name("migrations.sha256")


def test_migrations_are_frozen():
    """A new migration gets a line here; an existing line never changes."""
    frozen = dict(line.split() for line in FROZEN.read_text().splitlines())
    found = {f"{m.name}.{m.storage or 'any'}": m.sha256 for m in read_migrations()}
    assert found == frozen


def test_migration_numbers_follow_each_other():
    numbers = sorted({int(m.name[:4]) for m in read_migrations()})
    assert numbers == list(range(1, len(numbers) + 1))
