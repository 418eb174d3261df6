"""The embedded PostgreSQL trusts whoever reaches its socket: nobody else may."""

from pathlib import Path

import psycopg

from fettle import embedded


def test_other_users_of_the_machine_cannot_reach_the_socket(tmp_path):
    with embedded.postgres(tmp_path / "postgres", options={"fsync": "off"}) as url:
        with psycopg.connect(url) as conn:
            folder = Path(conn.info.host)
        assert folder.stat().st_mode & 0o077 == 0
    assert not folder.exists()
