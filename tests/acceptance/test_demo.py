"""`make demo` as a new user sees it: where to look within a minute, a ticket within three, nothing left behind."""

import json
import time
from pathlib import Path

import pytest


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_the_demo_finds_a_faulty_machine_and_stops_cleanly(fettle, record_property):
    fettle.environment |= {"FETTLE_DATA_DIR": str(fettle.data)}
    began = time.monotonic()
    with fettle.running("demo", ready_s=60):
        while "supervisor" not in fettle.output():
            assert time.monotonic() - began < 60, fettle.output()
            time.sleep(0.2)
        assert fettle.api_url in fettle.output()
        plan = json.loads((fettle.data / "demo.json").read_text())
        with fettle.api("supervisor", plan["password"]) as api:
            while True:
                tickets = api.get("/api/v1/tickets", params={"type": "potential_fault"}).json()["tickets"]
                if any(t["state"] == "dispatched" for t in tickets):
                    break
                assert time.monotonic() - began < 180, fettle.output()
                time.sleep(1)
            first_after_s = time.monotonic() - began
            time.sleep(20)
            tickets = api.get("/api/v1/tickets", params={"type": "potential_fault"}).json()["tickets"]
            details = [api.get(f"/api/v1/tickets/{t['id']}").json() for t in tickets]
        assert [t for t in tickets if t["equipment_number"] not in plan["faulty_machines"]] == []
        assert all(d["evidence"] for d in details)
        assert any(d["assignments"] for d in details)
        record_property("told", f"demo: first dispatched ticket after {first_after_s:.0f} s; {len(tickets)} in all")
    assert fettle.processes() == []
    began = time.monotonic()
    with fettle.running("demo", ready_s=40):
        again_s = time.monotonic() - began
        with fettle.api("supervisor", plan["password"]) as api:
            kept = api.get("/api/v1/tickets", params={"type": "potential_fault"}).json()["tickets"]
        assert {t["number"] for t in tickets} <= {t["number"] for t in kept}
        record_property("told", f"demo: the second start answers after {again_s:.0f} s")
    assert fettle.processes() == []
    assert Path(fettle.data / "postgres").is_dir()
