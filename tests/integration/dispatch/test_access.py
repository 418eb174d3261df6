"""Who may call what: every endpoint with every role, and with none. Default deny."""

import asyncio
import inspect
import json
import re
from collections import Counter
from pathlib import Path

import pytest

from anomaly import routes as finding_routes
from dispatch import offers
from dispatch import routes as dispatch_routes
from fettle import http
from fettle.errors import FettleError
from fettle.http import LOGIN, Part, guards
from fettle.model import Role
from fettle.problems import PROBLEMS
from workorders import api as workorders
from workorders import intake, lifecycle, store, tickets
from workorders import routes as ticket_routes

PARTS = [
    Part(ticket_routes.router, ticket_routes.PROBLEMS),
    Part(finding_routes.router, finding_routes.PROBLEMS),
    Part(dispatch_routes.router, dispatch_routes.PROBLEMS),
]

# The role-function matrix as the customer signed it off. A new endpoint must be entered here.
C, T, S, E, F, A, H, M = (
    Role.CUSTOMER_REP, Role.ORDER_TAKER, Role.SUPERVISOR, Role.ENGINEER, Role.FINANCE, Role.ADMIN, Role.HQ_VIEWER, Role.MACHINE_ACCOUNT,
)  # fmt: skip
EVERYONE = None
MATRIX = {
    "POST /api/v1/login": EVERYONE,
    "GET /api/v1/health": EVERYONE,
    "POST /api/v1/logout": {C, T, S, E, F, A, H, M},
    "GET /api/v1/me": {C, T, S, E, F, A, H, M},
    "POST /api/v1/tickets": {C, T, S, E, A, M},
    "GET /api/v1/tickets": {C, T, S, E, F, A, H},
    "GET /api/v1/tickets/{ticket_id}": {C, T, S, E, F, A, H},
    "POST /api/v1/tickets/{ticket_id}/transitions": {C, T, S, E},
    "POST /api/v1/tickets/{ticket_id}/machine": {T, S},
    "GET /api/v1/machines/{number}": {C, T, S, E, F, A, H},
    "GET /api/v1/offers": {E},
    "POST /api/v1/assignments/{assignment_id}/acceptance": {E},
    "POST /api/v1/assignments/{assignment_id}/rejection": {E},
    "POST /api/v1/assignments/{assignment_id}/check-in": {E},
    "POST /api/v1/assignments/{assignment_id}/result": {E},
    "POST /api/v1/tickets/{ticket_id}/acceptance": {C, T, S},
    "POST /api/v1/tickets/{ticket_id}/rejection": {C, T, S},
    "POST /api/v1/tickets/{ticket_id}/offers": {S},
    "GET /api/v1/tickets/{ticket_id}/dispatch-decisions": {T, S, F, A, H},
    "GET /api/v1/engineers": {T, S, F, A, H},
    "GET /api/v1/findings": {C, T, S, E, F, A, H},
    "GET /api/v1/findings/{finding}": {C, T, S, E, F, A, H},
    "GET /api/v1/findings/{finding}/plot.svg": {C, T, S, E, F, A, H},
    "POST /api/v1/findings/{finding}/outcomes": {S, E},
    "GET /api/v1/machines/{number}/inhibitions": {T, S, E, F, A, H},
    "POST /api/v1/machines/{number}/inhibitions": {S, E},
    "DELETE /api/v1/inhibitions/{inhibition_id}": {S, E},
    "POST /api/v1/machines/{number}/missed-failures": {T, S, E},
    "POST /api/v1/machines/{number}/baseline-resets": {S},
    "GET /api/v1/machines/{number}/models": {T, S, E, F, A, H},
    "GET /api/v1/machines/{number}/detection-events": {T, S, E, F, A, H},
    "GET /api/v1/detection/rules": {T, S, F, A, H},
    "GET /api/v1/detection/configurations": {T, S, E, F, A, H},
    "GET /api/v1/detection/configurations/{name}/comparison": {T, S, F, A, H},
}


def test_every_endpoint_is_in_the_matrix_with_its_roles():
    found = {f"{method} {path}": roles for part in (LOGIN, *PARTS) for method, path, roles in guards(part.router)}
    assert found == {name: roles if roles is None else frozenset(roles) for name, roles in MATRIX.items()}


async def test_every_role_is_let_in_or_refused_as_the_matrix_says(company, office):
    acme = await company("acme")
    await acme.hire("engineer")
    web = await office(acme, PARTS)
    wrong = []
    for role in Role:
        headers = await web.log_in(f"acme.{role.value}")
        for name, roles in MATRIX.items():
            method, path = name.split()
            if roles is None or path.endswith("/logout"):
                continue
            answer = await web.client.request(
                method, re.sub(r"\{\w+\}", "1", path), headers=headers, json={} if method == "POST" else None
            )
            is_refused = answer.status_code == 403 and answer.json()["code"] == "not-allowed"
            if is_refused == (role in roles) or answer.status_code >= 500:
                wrong.append((role.value, name, answer.status_code))
    assert wrong == []


async def test_without_a_login_everything_else_is_closed(company, office):
    web = await office(await company("acme"), PARTS)
    for bearer in (
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic YTpi"},
        {"Cookie": f"{http.COOKIE}=nonsense"},
    ):
        for name, roles in MATRIX.items():
            method, path = name.split()
            if roles is None:
                continue
            answer = await web.client.request(
                method, re.sub(r"\{\w+\}", "1", path), headers={**bearer, "Origin": "http://fettle"}
            )
            assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer"), name


async def test_a_session_ends_by_logout_and_by_time(company, office):
    web = await office(await company("acme"), PARTS)
    first, second = await web.log_in("acme.admin"), await web.log_in("acme.admin")
    assert (await web.client.post("/api/v1/logout", headers=first)).status_code == 204
    assert (await web.client.get("/api/v1/me", headers=first)).status_code == 401
    assert (await web.client.get("/api/v1/me", headers=second)).json()["role"] == "admin"
    web.clock.advance(hours=13)
    assert (await web.client.get("/api/v1/me", headers=second)).status_code == 401


async def test_a_cookie_works_for_our_pages_alone(company, office):
    web = await office(await company("acme"), PARTS)
    body = {"login": "acme.order_taker", "password": "a long enough password"}
    logged_in = await web.client.post(
        "/api/v1/login", data=body, headers={"Accept": "text/html", "Origin": "http://fettle"}
    )
    assert (logged_in.status_code, logged_in.headers["Location"]) == (303, "/")
    cookie = logged_in.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=strict" in cookie
    assert (await web.client.get("/api/v1/me")).status_code == 200
    report = dict.fromkeys(intake.REQUIRED, "12345")
    foreign = await web.client.post("/api/v1/tickets", json=report, headers={"Origin": "http://evil.example"})
    assert (foreign.status_code, foreign.json()["code"]) == (403, "cross-site")
    assert (
        await web.client.post("/api/v1/tickets", json=report, headers={"Origin": "http://fettle"})
    ).status_code == 201
    from_elsewhere = await web.client.post("/api/v1/login", json=body, headers={"Origin": "http://evil.example"})
    assert from_elsewhere.status_code == 403


@pytest.mark.parametrize("wanted", ["//evil.example", "/\\evil.example", "https://evil.example", "evil"])
async def test_a_login_leads_to_no_other_site(company, office, wanted):
    web = await office(await company("acme"), PARTS)
    body = {"login": "acme.admin", "password": "a long enough password"}
    answer = await web.client.post("/api/v1/login", params={"next": wanted}, data=body, headers={"Accept": "text/html"})
    assert answer.headers["Location"] == "/"


async def test_guessing_passwords_is_slowed_down(company, office):
    web = await office(await company("acme"), PARTS)
    answers = [
        await web.client.post("/api/v1/login", json={"login": "acme.admin", "password": f"guess {n}"}) for n in range(7)
    ]
    assert [a.status_code for a in answers] == [401] * 5 + [429] * 2
    assert int(answers[-1].headers["Retry-After"]) > 200
    right = await web.client.post("/api/v1/login", json={"login": "acme.admin", "password": "a long enough password"})
    assert right.status_code == 429
    assert (
        await web.client.post("/api/v1/login", json={"login": "acme.finance", "password": "a long enough password"})
    ).status_code == 200


async def test_guesses_sent_at_once_are_slowed_down_like_others(company, office):
    web = await office(await company("acme"), PARTS)
    answers = await asyncio.gather(
        *(web.client.post("/api/v1/login", json={"login": "acme.admin", "password": f"guess {n}"}) for n in range(20))
    )
    assert Counter(a.status_code for a in answers) == {401: 5, 429: 15}


async def test_a_name_too_long_for_anybody_is_not_remembered(company, office):
    web = await office(await company("acme"), PARTS)
    for _ in range(7):
        answer = await web.client.post("/api/v1/login", json={"login": "x" * 900_000, "password": "p"})
        assert answer.status_code == 401


async def test_bad_input_never_breaks_the_server(company, office):
    acme = await company("acme")
    web = await office(acme, PARTS)
    taker = {**await web.log_in("acme.order_taker"), "Content-Type": "application/json"}
    for body in (
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff\xfe",
        b'{"equipment_number": "\\u0000"}',
        b'{"equipment_number": "\\ud800", "fault_description": "x", "contact_phone": "12345", "region": "x"}',
        json.dumps({"answers": {"a": "\x00"}, **dict.fromkeys(intake.REQUIRED, "12345")}).encode(),
    ):
        answer = await web.client.post("/api/v1/tickets", content=body, headers=taker)
        assert answer.status_code == 422, (body, answer.text)
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert (await web.client.post("/api/v1/tickets", content=b" " * 2_000_000, headers=taker)).status_code == 413
    for path in (
        "/api/v1/tickets/0",
        "/api/v1/tickets/x",
        f"/api/v1/tickets/{2**63}",
        "/api/v1/tickets?limit=0",
        "/api/v1/tickets?state=lost",
    ):
        assert (await web.client.get(path, headers=taker)).status_code == 422, path
    for path in ("/api/v1/machines/%00", "/api/v1/tickets?machine=%00"):
        assert (await web.client.get(path, headers=taker)).status_code == 422, path
    assert (await web.client.get("/api/v1/tickets/9223372036854775807", headers=taker)).status_code == 404


async def test_the_api_describes_itself(company, office):
    web = await office(await company("acme"), PARTS)
    document = (await web.client.get("/api/v1/openapi.json")).json()
    assert document["openapi"].startswith("3.")
    described = {f"{method.upper()} {path}" for path, methods in document["paths"].items() for method in methods}
    assert described == set(MATRIX)
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert operation["description"], (method, path)
    report = document["components"]["schemas"]["TicketReport"]
    assert report["required"] == list(intake.REQUIRED)
    text = json.dumps(document)
    assert set(re.findall(r"#/components/schemas/(\w+)", text)) <= set(document["components"]["schemas"])


def test_the_reference_page_lists_every_endpoint_and_code():
    page = (Path(__file__).parents[3] / "docs" / "reference" / "api.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(\w+ /\S+)` \| ([^|]+) \|", page, re.MULTILINE))
    shorthand = {"everyone": None, "all roles": set(Role), "all but machine_account": set(Role) - {M}}
    assert {
        name: shorthand[roles] if roles in shorthand else {Role(role) for role in roles.split(", ")}
        for name, roles in listed.items()
    } == MATRIX
    codes = {kind.code for part in PARTS for kind in part.problems.values()} | {kind.code for kind in PROBLEMS.values()}
    assert {code for code in codes if f"`{code}`" not in page} == set()


async def test_a_new_password_ends_every_login_and_the_same_one_none(company, office):
    acme = await company("acme")
    web = await office(acme, PARTS)
    admin = await web.log_in("acme.admin")
    for password, status in (("a long enough password", 200), (None, 200), ("another long password", 401)):
        async with acme.api() as conn:
            await workorders.create_account(
                conn, login="acme.admin", role=Role.ADMIN, display_name="a", password=password
            )
        assert (await web.client.get("/api/v1/me", headers=admin)).status_code == status, password
    rival = await company("rival")
    with pytest.raises(workorders.LoginTaken):
        async with rival.api() as conn:
            await workorders.create_account(
                conn, login="acme.admin", role=Role.ADMIN, display_name="thief", password="x" * 9
            )


def test_every_error_of_these_packages_has_a_status():
    told = {error for part in PARTS for error in part.problems}
    for module in (lifecycle, store, tickets, offers):
        for _, error in inspect.getmembers(module, inspect.isclass):
            if issubclass(error, FettleError) and error.__module__ == module.__name__:
                assert error in told, error
