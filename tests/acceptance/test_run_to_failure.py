"""A recorded run to failure, replayed through the broker: one ticket for the rig, in time, the right sensor first, dispatched."""

import csv
import time
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

IMS = Path(__file__).resolve().parents[3] / "shared" / "data" / "ims-bearing" / "2nd_test_mean_abs.csv"

COMPANY = """
[[site]]
code = "lab"
name = "Test laboratory"
latitude = 31.3
longitude = 120.6
[[site.machine]]
number = "RIG-1"
name = "Bearing test rig"

[[engineer]]
code = "wang"
name = "Wang Wei"
latitude = 31.2
longitude = 120.5
job_cap = 3
[[engineer.shift]]
days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
starts = 00:00:00
hours = 24
[[engineer.certificate]]
code = "vibration"
level = 3
valid_from = 2020-01-01
valid_to = 2039-12-31
[[engineer.certificate]]
code = "mechanical"
level = 3
valid_from = 2020-01-01
valid_to = 2039-12-31

[[account]]
login = "chief"
role = "supervisor"
password = "a-long-password"
"""


def _own_series(path: Path) -> tuple[str, datetime]:
    """Write a run to failure of our own: four bearings, ten-minute records, the third wears from day 3.5 of 7."""
    random = np.random.default_rng(11)
    start = datetime(2026, 3, 1, 8, 0, 0)
    rows = 1000
    days = np.arange(rows) / 144
    wear = 0.02 * np.expm1(np.clip(days - 3.5, 0, None) * 0.9)
    columns = [level * (1 + 0.012 * random.standard_normal(rows)) for level in (0.061, 0.072, 0.083, 0.045)]
    columns[2] += 0.083 * wear
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["Datetime", "Bearing 1", "Bearing 2", "Bearing 3", "Bearing 4"])
        for i in range(rows):
            writer.writerow(
                [(start + timedelta(minutes=10 * i)).strftime("%Y.%m.%d.%H.%M.%S"), *(f"{c[i]:.6f}" for c in columns)]
            )
    return "Bearing 3", start + timedelta(minutes=10 * (rows - 1))


@pytest.fixture(params=["recorded", "our own"])
def series(request, tmp_path):
    """The file, the sensor that fails, and the time of the failure."""
    if request.param == "our own":
        path = tmp_path / "run.csv"
        return path, *_own_series(path)
    if not IMS.exists():
        pytest.skip(f"no recorded run to failure at {IMS}")
    last = IMS.read_text().strip().splitlines()[-1].split(",")[1]
    return IMS, "Bearing 1", datetime.strptime(last, "%Y.%m.%d.%H.%M.%S")


@pytest.mark.timeout(240)
def test_one_ticket_for_the_rig_dispatched_in_time(fettle, series, record_property):
    path, failing, failure_at = series
    (fettle.folder / "company.toml").write_text(COMPANY)
    with fettle.running("up"):
        fettle.run("company", "company.toml")
        replayed = fettle.run(
            "replay",
            str(path),
            "--time-column",
            "Datetime",
            "--machine",
            "RIG-1",
            "--site",
            "lab",
            "--unit",
            "g",
            "--speed",
            "0",
        )
        assert "acknowledged" in replayed.stdout + replayed.stderr
        with fettle.api("chief", "a-long-password") as api:
            deadline = time.monotonic() + 90
            while True:
                tickets = api.get("/api/v1/tickets", params={"type": "potential_fault"}).json()["tickets"]
                behind = "caught up" not in fettle.run("check", "--part", "detection", check=False).stdout
                if not behind and tickets and tickets[0]["state"] == "dispatched":
                    break
                assert time.monotonic() < deadline, (tickets, behind, fettle.output())
                time.sleep(0.5)
            time.sleep(2)
            tickets = api.get("/api/v1/tickets").json()["tickets"]
            assert [t["equipment_number"] for t in tickets] == ["RIG-1"]
            ticket = api.get(f"/api/v1/tickets/{tickets[0]['id']}").json()
    first = ticket["evidence"][0]
    assert first["evidence"]["contributions"][0]["sensor"] == failing
    assert ticket["assignments"][0]["engineer"] == "Wang Wei"
    raised_at = datetime.fromisoformat(first["at"]).replace(tzinfo=None)
    lead = failure_at - raised_at
    record_property(
        "told",
        f"{path.name}: potential-fault ticket {lead / timedelta(days=1):.2f} days before the failure, {failing} first",
    )
    assert lead >= timedelta(days=1)
    assert fettle.processes() == []
