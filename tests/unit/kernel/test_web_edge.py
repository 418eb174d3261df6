"""Passwords, throttling, languages, same-origin: the parts of the web edge that need no server."""

import logging

import pytest
from fastapi import APIRouter, Depends
from starlette.datastructures import Headers

from fettle import logs, passwords
from fettle.http import UnguardedRoute, anyone, guards, refuse_cross_site, require
from fettle.model import Role
from fettle.problems import PROBLEMS, CrossSite, language_of


def test_a_password_opens_only_its_own_hash():
    stored = passwords.hash_password("correct horse")
    assert passwords.verify_password("correct horse", stored)
    assert not passwords.verify_password("correct horse ", stored)
    assert passwords.hash_password("correct horse") != stored  # salted
    assert "correct" not in stored


@pytest.mark.parametrize("stored", [passwords.NO_PASSWORD, passwords.LOCKED])
@pytest.mark.parametrize("guess", ["", "\x00", "A", "password"])
def test_nothing_opens_an_account_without_a_password(stored, guess):
    assert not passwords.verify_password(guess, stored)


def test_tokens_do_not_repeat_and_are_kept_as_hashes():
    tokens = {passwords.new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert {len(passwords.hash_token(token)) for token in tokens} == {32}


def test_guesses_are_slowed_down_until_the_window_has_passed():
    throttle = passwords.Throttle(allowed=3, window_s=60)
    for second in range(3):
        assert throttle.wait_s("x", now_s=second) == 0
        throttle.fail("x", now_s=second)
    assert throttle.wait_s("x", now_s=10) == 52
    assert throttle.wait_s("y", now_s=10) == 0
    assert throttle.wait_s("x", now_s=62) == 0
    throttle.fail("x", now_s=63)  # a new window, a new count
    assert throttle.wait_s("x", now_s=63) == 0
    for _ in range(3):
        throttle.fail("x", now_s=64)
    throttle.forget("x")
    assert throttle.wait_s("x", now_s=64) == 0


def test_made_up_names_do_not_fill_the_memory():
    throttle = passwords.Throttle(allowed=1, window_s=60, most=10)
    for n in range(1000):
        throttle.fail(f"x{n}", now_s=n)
    assert len(throttle._guesses) == 10


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"), ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-US,en;q=0.9,zh;q=0.8", "en"), ("de,zh;q=0.5", "zh"), ("fr", "en"),
        ("ZH", "zh"), ("zh;q=0", "en"), ("zh;q=x,en", "en"), ("zh-Hant-TW", "zh"), ("en;q=0.1, zh;q=0.2", "zh"),
    ],
)  # fmt: skip
def test_the_language_is_the_one_asked_for_most(header, language):
    assert language_of(Headers({"accept-language": header})) == language


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ({"sec-fetch-site": "same-origin"}, False),
        ({"sec-fetch-site": "same-site", "origin": "http://fettle"}, True),
        ({"sec-fetch-site": "cross-site"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"origin": "http://fettle"}, False),
        ({"origin": "http://fettle.evil.example"}, True),
        ({"origin": "null"}, True),
        ({"referer": "http://fettle/page"}, False),
        ({"referer": "http://evil.example/fettle"}, True),
        ({}, True),
    ],
)
def test_a_cookie_is_taken_only_from_our_own_pages(headers, is_refused):
    request = Headers({"host": "fettle", **headers})
    if is_refused:
        with pytest.raises(CrossSite):
            refuse_cross_site(request)
    else:
        refuse_cross_site(request)


def test_a_route_that_names_no_roles_stops_the_application():
    router = APIRouter()
    router.add_api_route("/open", lambda: None, dependencies=[Depends(anyone)])
    router.add_api_route(
        "/office", lambda: None, dependencies=[Depends(require(Role.ADMIN, Role.FINANCE)), Depends(require(Role.ADMIN))]
    )
    assert list(guards(router)) == [("GET", "/open", None), ("GET", "/office", frozenset({Role.ADMIN}))]
    router.add_api_route("/forgotten", lambda: None)
    with pytest.raises(UnguardedRoute, match="/forgotten"):
        list(guards(router))


def test_naming_no_role_is_a_mistake():
    with pytest.raises(ValueError, match="needs the roles"):
        require()


def test_every_problem_reads_in_both_languages():
    kinds = set(PROBLEMS.values())
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in PROBLEMS.values():
        assert any("\u4e00" <= c <= "\u9fff" for c in kind.detail_zh)
        assert any("\u4e00" <= c <= "\u9fff" for c in kind.title.zh)
        assert 400 <= kind.status < 600


def test_a_right_attempt_is_taken_back_and_the_wrong_ones_before_it_stay():
    throttle = passwords.Throttle(allowed=2, window_s=60)
    for second in range(2):
        throttle.fail("x", now_s=second)
    throttle.take_back("x")
    assert throttle.wait_s("x", now_s=2) == 0
    throttle.fail("x", now_s=3)
    assert throttle.wait_s("x", now_s=4) > 0
    throttle.take_back("nobody")


def test_a_password_costs_a_guess_what_the_field_asks_for():
    """OWASP: scrypt with n=2**14 and r=8 takes p=5 at least."""
    _, n, r, p, _, _ = passwords.hash_password("x").split("$")
    assert (int(n) * int(r) * int(p)) >= 2**14 * 8 * 5


@pytest.mark.parametrize("login", ["x\n12:00:00 info fettle.http login.done", "a\tb", 'a"b', "\x1b[31m", "王 伟"])
def test_what_people_send_makes_no_line_of_its_own_in_the_log(login):
    record = logging.LogRecord("fettle.http", logging.WARNING, "", 0, "login.failed", (), None)
    record.fields = {"login": login}
    line = logs._Text().format(record)
    assert line.isprintable()
    assert line.endswith('"')
