"""Wrong settings end with one line that names the setting, not with a traceback."""

import pytest

from fettle import cli
from fettle.db import BadDatabaseUrl, DatabaseRole, connection_string, describe


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("FETTLE_API_PORT", "abc"),
        ("FETTLE_API_PORT", "70000"),
        ("FETTLE_STORAGE", "floppy"),
        ("FETTLE_TENANT", "Two Words"),
        ("FETTLE_COLLECTOR_TOPICS", "not json"),
        ("FETTLE_DETECT_SHARD", "1 of 2"),
    ],
)
def test_a_wrong_setting_is_named(name, value, monkeypatch, capsys):
    monkeypatch.setenv(name, value)
    assert cli.main(["check", "--part", "settings"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"fettle: {name}: ")
    assert "docs/reference/settings.md" in told


@pytest.mark.parametrize("url", ["secret", "postgresql://u:se%cret@host/db", "postgresql://u:secret@[host/db"])
def test_a_wrong_database_address_is_told_without_what_it_holds(url):
    for use in (describe, lambda wrong: connection_string(wrong, role=DatabaseRole.OWNER, name="test")):
        with pytest.raises(BadDatabaseUrl, match="FETTLE_DATABASE_URL") as caught:
            use(url)
        assert "cret" not in str(caught.value)
        assert caught.value.__suppress_context__
