"""The board over HTTP: its two pages, its data, its files.

    /            to the board        /board/data/overview   machines and open tickets
    /login       the log-in page     /board/data/trace      one machine, one range
    /board       the board           /board/data/ticket/N   one ticket

The pages load nothing from elsewhere and run under a content security policy that says so.
"""

import functools
import hashlib
from importlib import resources
from typing import Annotated, Any
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import RedirectResponse

from dashboards import palette, words
from dashboards.board import NoSuchMachine, NoSuchTicket, WrongRange, load_overview, load_scope, load_ticket, load_trace
from dashboards.pages import TRACE_POINTS
from fettle.http import Part, Principal, anyone, begin, edge_of, identify, require
from fettle.model import Role
from fettle.problems import NotAllowed, NotLoggedIn, ProblemKind, language_of
from fettle.words import Language, Words

router = APIRouter(include_in_schema=False)

VIEWERS = tuple(role for role in Role if role is not Role.MACHINE_ACCOUNT)
Viewer = Annotated[Principal, Depends(require(*VIEWERS))]

FILERS = frozenset({Role.CUSTOMER_REP, Role.ORDER_TAKER, Role.SUPERVISOR, Role.ENGINEER, Role.ADMIN})

POLICY = (
    "default-src 'self'; img-src 'self'; style-src 'self'; script-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
_TYPES = {"js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}

PROBLEMS: dict[type[Exception], ProblemKind] = {
    NoSuchMachine: ProblemKind(404, "no-such-machine", Words("No such machine", "没有此设备"), "没有您可查看的设备 {machine_id}，请从看板列表中选择。"),
    NoSuchTicket: ProblemKind(404, "no-such-ticket", Words("No such ticket", "没有此工单"), "没有您可查看的工单 {number}，请核对编号。"),
    WrongRange: ProblemKind(422, "wrong-range", Words("Range cannot be shown", "时间范围无效"), "无法显示 {from_ms} 至 {to_ms}：起点须早于终点，且不超过 400 天（1970 年以来的毫秒数）。"),
}  # fmt: skip


@functools.cache
def _files() -> dict[str, tuple[bytes, str, str]]:
    """Return name -> content, type and tag of every file of the pages; the palette is made from its table."""
    found = {
        entry.name: entry.read_bytes()
        for entry in resources.files("dashboards").joinpath("static").iterdir()
        if entry.name.rpartition(".")[2] in _TYPES
    }
    found["palette.css"] = palette.css().encode()
    return {
        name: (body, _TYPES[name.rpartition(".")[2]], f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        for name, body in found.items()
    }


@functools.cache
def _page(name: str, language: Language) -> bytes:
    text = resources.files("dashboards").joinpath("static", name).read_text(encoding="utf-8")
    return text.replace("{lang}", language).encode()


def _html(name: str, language: Language) -> Response:
    return Response(
        _page(name, language),
        media_type="text/html; charset=utf-8",
        headers={
            "Content-Security-Policy": POLICY,
            "X-Frame-Options": "DENY",
            "Cache-Control": "no-store",
            "Vary": "Cookie, Accept-Language",
        },
    )


def _json(body: Any) -> Response:
    return Response(orjson.dumps(body), media_type="application/json", headers={"Cache-Control": "no-store"})


@router.get("/", dependencies=[Depends(anyone)])
async def open_front_door() -> Response:
    return RedirectResponse("/board", 303)


@router.get("/login", dependencies=[Depends(anyone)])
async def show_login(request: Request) -> Response:
    return _html("login.html", language_of(request.headers))


@router.get("/board", dependencies=[Depends(anyone)])
async def show_board(request: Request) -> Response:
    """Show the board, or the log-in page first: a person is at the other end, to whom a problem document says little."""
    try:
        principal = await identify(request)
    except NotLoggedIn:
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/login?next={quote(wanted, safe='')}", 303)
    if principal.role not in VIEWERS:
        raise NotAllowed(role=principal.role.value, allowed=", ".join(sorted(VIEWERS)))
    return _html("board.html", principal.language)


@router.get("/board/words.json", dependencies=[Depends(anyone)])
async def show_words(request: Request) -> Response:
    return _cached(request, orjson.dumps({"en": words.table("en"), "zh": words.table("zh")}), "application/json", None)


@router.get("/board/static/{name}", dependencies=[Depends(anyone)])
async def show_file(request: Request, name: str) -> Response:
    found = _files().get(name)
    if found is None:
        return Response(status_code=404)
    return _cached(request, *found)


def _cached(request: Request, body: bytes, media_type: str, tag: str | None) -> Response:
    """Answer a file; a browser that has this very one is told so."""
    tag = tag or f'"{hashlib.sha256(body).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


@router.get("/board/data/overview")
async def show_overview(request: Request, principal: Viewer, lang: Language | None = None) -> Response:
    language = lang or principal.language
    async with begin(request, principal) as conn:
        scope = await load_scope(conn, principal=principal)
        body = await load_overview(conn, scope=scope, language=language, now=edge_of(request).now())
    body["me"] = {
        "name": principal.display_name,
        "role": principal.role,
        "language": principal.language,
        "may_file": principal.role in FILERS,
    }
    return _json(body)


@router.get("/board/data/trace")
async def show_trace(
    request: Request,
    principal: Viewer,
    machine: Annotated[int, Query(ge=1, le=2**31 - 1)],
    from_ms: Annotated[int, Query(alias="from", ge=0, le=253_402_300_799_000)],
    to_ms: Annotated[int, Query(alias="to", ge=0, le=253_402_300_799_000)],
    points: Annotated[int, Query(ge=10, le=TRACE_POINTS)] = TRACE_POINTS,
    lang: Language | None = None,
) -> Response:
    async with begin(request, principal) as conn:
        scope = await load_scope(conn, principal=principal)
        body = await load_trace(
            conn,
            scope=scope,
            machine_id=machine,
            from_ms=from_ms,
            to_ms=to_ms,
            points=points,
            language=lang or principal.language,
        )
    return _json(body)


@router.get("/board/data/ticket/{number}")
async def show_ticket(request: Request, principal: Viewer, number: str, lang: Language | None = None) -> Response:
    async with begin(request, principal) as conn:
        scope = await load_scope(conn, principal=principal)
        body = await load_ticket(
            conn,
            scope=scope,
            number=number,
            language=lang or principal.language,
            principal=principal,
        )
    return _json(body)


PART = Part(router, PROBLEMS)
