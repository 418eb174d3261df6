"""`fettle work` as people start it."""

import asyncio
import os
import signal
import sys


async def test_the_verb_dispatches_and_stops_when_asked(company, plain_database):
    acme = await company("acme")
    engineer_id = await acme.hire("chen")
    environment = {**os.environ, "FETTLE_DATABASE_URL": plain_database.url, "FETTLE_LOG_FORMAT": "json"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "fettle.cli", "work", "--poll-s", "0.2", env=environment, stderr=asyncio.subprocess.PIPE
    )
    try:
        await acme.find_fault()
        async with asyncio.timeout(60):
            while True:
                async with acme.worker() as conn:
                    rows = await (await conn.execute("SELECT engineer_id, status FROM assignment")).fetchall()
                if rows:
                    break
                await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            _, told = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert rows == [(engineer_id, "offered")]
    assert process.returncode == 0
    assert b'"event": "round.done"' in told
    assert b"Traceback" not in told
