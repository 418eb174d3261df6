"""The web edge that every package's routes share: who is calling, what they may do, and how errors read.

    app = create_app(pool, parts=[Part(workorders.routes.router, workorders.routes.PROBLEMS)])

    @router.get("/tickets")
    async def list_tickets(request: Request, principal: Annotated[Principal, Depends(require(Role.ORDER_TAKER))]):
        async with begin(request, principal) as conn:      # committed before the answer is sent
            ...

Every route names the roles that may call it with `require(...)`, or says `Depends(anyone)`; an application with a route
that does neither does not start. Errors become problem documents: see `fettle.problems`.
"""

import asyncio
import hashlib
import json
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from fastapi.routing import APIRoute, APIWebSocketRoute
from psycopg.types.json import Jsonb
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fettle import clock, logs, passwords, problems
from fettle.db import AsyncConn, Pool, transaction
from fettle.errors import FettleError
from fettle.model import CustomerId, EngineerId, Role, TenantId, UserId
from fettle.problems import (
    PROBLEMS,
    CrossSite,
    KeyReused,
    NotAllowed,
    NotLoggedIn,
    ProblemKind,
    TooManyAttempts,
    VersionMissing,
    VersionUnreadable,
    WrongPassword,
)
from fettle.words import FieldProblem, InvalidFields, Language, Words

log = logs.get("http")
COOKIE = "fettle_session"
_SAFE = {"GET", "HEAD", "OPTIONS"}
_LARGEST_BODY = 1_048_576
_LONGEST_LOGIN = 200


class UnguardedRoute(FettleError):
    """{path} names no roles: add Depends(require(...)), or Depends(anyone) if it is meant for everyone."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is calling: an account of one tenant, with the one role that decides what it may do."""

    tenant_id: TenantId
    account_id: UserId
    login: str
    role: Role
    display_name: str
    language: Language
    engineer_id: EngineerId | None = None
    customer_id: CustomerId | None = None


class Require:
    """Dependency that lets certain roles in, and hands the route its `Principal`."""

    def __init__(self, roles: frozenset[Role]) -> None:
        self.roles = roles

    async def __call__(self, connection: HTTPConnection) -> Principal:
        principal = await identify(connection)
        if principal.role not in self.roles:
            raise NotAllowed(role=principal.role.value, allowed=", ".join(sorted(self.roles)))
        return principal


def require(*roles: Role) -> Require:
    """Return the dependency for a route that these roles may call; all others are refused."""
    if not roles:
        raise ValueError("require() needs the roles that are let in; for everyone signed in say require(*Role)")
    return Require(frozenset(roles))


async def anyone() -> None:
    """Mark a route as open to callers who are not logged in."""


SignedIn = Annotated[Principal, Depends(require(*Role))]


@dataclass(frozen=True)
class Part:
    """What one package brings to the application."""

    router: APIRouter
    problems: Mapping[type[Exception], ProblemKind] = field(default_factory=dict)


@dataclass
class Edge:
    """What routes need at run time; `request.app.state.edge`."""

    pool: Pool
    now: Callable[[], datetime]
    session: timedelta
    by_login: passwords.Throttle = field(default_factory=lambda: passwords.Throttle(allowed=5, window_s=300))
    by_address: passwords.Throttle = field(default_factory=lambda: passwords.Throttle(allowed=50, window_s=300))


def edge_of(connection: HTTPConnection) -> Edge:
    edge: Edge = connection.app.state.edge
    return edge


@asynccontextmanager
async def begin(request: HTTPConnection, principal: Principal) -> AsyncIterator[AsyncConn]:
    """Open the one transaction of a request, confined to the caller's tenant."""
    async with transaction(edge_of(request).pool, tenant_id=principal.tenant_id) as conn:
        yield conn


async def identify(connection: HTTPConnection) -> Principal:
    """Return who sends a request, by bearer token or session cookie.

    Raises:
        NotLoggedIn: neither is given, or it has expired.
        CrossSite: a cookie came with an unsafe method from another site's page.
    """
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        token = connection.cookies.get(COOKIE, "")
        if token and connection.scope.get("method", "WEBSOCKET") not in _SAFE:
            refuse_cross_site(connection.headers)
    if not token:
        raise NotLoggedIn
    edge = edge_of(connection)
    async with edge.pool.connection() as conn:
        cursor = await conn.execute(
            """
            SELECT tenant_id, account_id, login, role, display_name, language, engineer_id, customer_id
            FROM find_login_session(%(token_hash)s, %(now)s)
            """,
            {"token_hash": passwords.hash_token(token.strip()), "now": edge.now()},
        )
        row = await cursor.fetchone()
    if row is None:
        raise NotLoggedIn
    tenant_id, account_id, login, role, name, language, engineer_id, customer_id = row
    return Principal(tenant_id, account_id, login, Role(role), name, language, engineer_id, customer_id)


def refuse_cross_site(headers: Headers) -> None:
    """Raise `CrossSite` unless the browser says that a page of this very origin sends the request."""
    fetch_site = headers.get("sec-fetch-site")
    if fetch_site is not None:
        if fetch_site != "same-origin":
            raise CrossSite
        return
    origin = headers.get("origin") or headers.get("referer")
    if origin is None or urlsplit(origin).netloc != headers.get("host"):
        raise CrossSite


def expected_version(request: Request) -> int:
    """Return the version of the header If-Match.

    Raises:
        VersionMissing: there is none.
        VersionUnreadable: it is no quoted number.
    """
    given = request.headers.get("if-match")
    if given is None:
        raise VersionMissing
    match = re.fullmatch(r'"(\d{1,9})"', given.strip())
    if match is None:
        raise VersionUnreadable(given=given)
    return int(match[1])


def etag(version: int) -> str:
    return f'"{version}"'


class _Shield:
    """Refuses large bodies and adds the headers that every answer carries."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        taken = 0

        async def limited() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > _LARGEST_BODY:
                # the framework passes on this error alone while it reads a body
                raise HTTPException(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"The body is larger than {_LARGEST_BODY} bytes."
                )
            return message

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                names = {name.lower() for name, _ in message["headers"]}
                extra = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
                if scope["path"].startswith("/api/") and b"cache-control" not in names:
                    extra.append((b"cache-control", b"no-store"))
                message["headers"] = [*message["headers"], *extra]
            await send(message)

        await self._app(scope, limited, guarded)


async def answer_once(
    request: Request, principal: Principal, conn: AsyncConn, act: Callable[[], Awaitable[JSONResponse]]
) -> Response:
    """Do what a request asks, or give the answer of the first time if its Idempotency-Key was used before.

    Key and answer are written in the transaction of the deed: a request that failed left neither, and one that arrives
    while the first is under way waits for it. Keys are kept for 48 hours, for each account by itself.

    Raises:
        KeyReused: the key came with another request.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        return await act()
    if not 1 <= len(key) <= 255:
        raise InvalidFields(
            [
                FieldProblem(
                    "Idempotency-Key",
                    "too-long",
                    Words("The key must have 1 to 255 characters.", "幂等键须为 1 到 255 个字符。"),
                )
            ]
        )
    now = edge_of(request).now()
    wanted = (
        f"{request.method} {request.url.path} {request.headers.get('if-match', '')}\n".encode() + await request.body()
    )
    parameters: dict[str, object] = {
        "tenant_id": principal.tenant_id,
        "account_id": principal.account_id,
        "key": key,
        "request_hash": hashlib.sha256(wanted).digest(),
        "now": now,
        "oldest": now - timedelta(hours=48),
    }
    await conn.execute(
        "DELETE FROM idempotency_key WHERE account_id = %(account_id)s AND created_at < %(oldest)s", parameters
    )
    inserted = await conn.execute(
        """
        INSERT INTO idempotency_key (tenant_id, account_id, key, request_hash, created_at)
        VALUES (%(tenant_id)s, %(account_id)s, %(key)s, %(request_hash)s, %(now)s)
        ON CONFLICT (tenant_id, account_id, key) DO NOTHING
        """,
        parameters,
    )
    if inserted.rowcount == 0:
        cursor = await conn.execute(
            """
            SELECT request_hash, status, headers, body FROM idempotency_key
            WHERE tenant_id = %(tenant_id)s AND account_id = %(account_id)s AND key = %(key)s
            """,
            parameters,
        )
        first = await cursor.fetchone()
        if first is None or bytes(first[0]) != parameters["request_hash"]:
            raise KeyReused(key=key)
        return JSONResponse(first[3], first[1], headers={**first[2], "Idempotency-Replayed": "true"})
    answer = await act()
    kept = {name: value for name, value in answer.headers.items() if name in {"location", "etag"}}
    await conn.execute(
        """
        UPDATE idempotency_key SET status = %(status)s, headers = %(headers)s, body = %(body)s
        WHERE tenant_id = %(tenant_id)s AND account_id = %(account_id)s AND key = %(key)s
        """,
        {
            **parameters,
            "status": answer.status_code,
            "headers": Jsonb(kept),
            "body": Jsonb(json.loads(bytes(answer.body))),
        },
    )
    return answer


_login_router = APIRouter(prefix="/api/v1", tags=["login"])
_LOGIN_FIELDS = {
    "login": Words("Give your login name.", "请填写登录名。"),
    "password": Words("Give your password.", "请填写密码。"),
}
_LOGIN_BODY = {
    "type": "object",
    "required": ["login", "password"],
    "properties": {"login": {"type": "string"}, "password": {"type": "string", "format": "password"}},
}


async def _read_login(request: Request) -> tuple[str, str]:
    """Return login and password of a JSON body or a form."""
    given: Mapping[str, object] = {}
    if request.headers.get("content-type", "").startswith("application/json"):
        try:
            body = await request.json()
        except ValueError:
            body = None
        given = body if isinstance(body, dict) else {}
    else:
        given = await request.form()
    login, password = given.get("login"), given.get("password")
    wrong = [
        name for name, value in (("login", login), ("password", password)) if not isinstance(value, str) or not value
    ]
    if wrong:
        raise InvalidFields([FieldProblem(name, "missing", _LOGIN_FIELDS[name]) for name in wrong])
    if len(str(login)) > _LONGEST_LOGIN:
        raise WrongPassword  # nobody is called that; it is neither remembered nor logged
    return str(login).strip(), str(password)


@_login_router.post(
    "/login",
    dependencies=[Depends(anyone)],
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _LOGIN_BODY},
                "application/x-www-form-urlencoded": {"schema": _LOGIN_BODY},
            },
        }
    },
)
async def log_in(request: Request) -> Response:
    """Log in. The answer carries a bearer token for programs and sets the session cookie for browsers."""
    if request.headers.get("origin") or request.headers.get("sec-fetch-site"):
        refuse_cross_site(request.headers)
    login, password = await _read_login(request)
    edge = edge_of(request)
    address = request.client.host if request.client else ""
    now, now_s = edge.now(), clock.monotonic_s()
    if wait := max(edge.by_login.wait_s(login, now_s=now_s), edge.by_address.wait_s(address, now_s=now_s)):
        raise TooManyAttempts(wait_s=math.ceil(wait))
    # counted before the answer is known: of many guesses sent at once no more go through than of many sent in turn
    edge.by_login.fail(login, now_s=now_s)
    edge.by_address.fail(address, now_s=now_s)
    async with edge.pool.connection() as conn:
        cursor = await conn.execute(
            "SELECT tenant_id, account_id, password_hash FROM find_account(%(login)s)", {"login": login}
        )
        row = await cursor.fetchone()
    tenant_id, account_id, stored = row or (None, None, passwords.NO_PASSWORD)
    if stored == passwords.LOCKED:
        stored = passwords.NO_PASSWORD  # takes as long as any other
    is_right = await asyncio.to_thread(passwords.verify_password, password, stored)
    if row is None or not is_right:
        log.warning("login.failed", login=login, address=address)
        raise WrongPassword
    edge.by_login.forget(login)
    edge.by_address.take_back(address)
    token, expires_at = passwords.new_token(), now + edge.session
    async with transaction(edge.pool, tenant_id=tenant_id) as conn:
        await conn.execute(
            """
            INSERT INTO login_session (token_hash, tenant_id, account_id, created_at, expires_at)
            VALUES (%(token_hash)s, %(tenant_id)s, %(account_id)s, %(now)s, %(expires_at)s)
            """,
            {
                "token_hash": passwords.hash_token(token),
                "tenant_id": tenant_id,
                "account_id": account_id,
                "now": now,
                "expires_at": expires_at,
            },
        )
        await conn.execute("DELETE FROM login_session WHERE expires_at < %(now)s", {"now": now})
    log.info("login.done", login=login)
    answer: Response
    if "text/html" in request.headers.get("accept", ""):
        wanted = request.query_params.get("next", "/")
        answer = RedirectResponse(wanted if re.match(r"/(?![/\\])", wanted) else "/", HTTPStatus.SEE_OTHER)
    else:
        answer = JSONResponse({"token": token, "expires_at": expires_at.isoformat()})
    answer.set_cookie(
        COOKIE,
        token,
        max_age=int(edge.session.total_seconds()),
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
        path="/",
    )
    return answer


@_login_router.post("/logout", status_code=HTTPStatus.NO_CONTENT)
async def log_out(request: Request, principal: SignedIn) -> Response:
    """End the session whose token or cookie was sent."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip() if scheme.lower() == "bearer" else request.cookies.get(COOKIE, "")
    async with begin(request, principal) as conn:
        await conn.execute(
            "DELETE FROM login_session WHERE token_hash = %(token_hash)s", {"token_hash": passwords.hash_token(token)}
        )
    answer = Response(status_code=HTTPStatus.NO_CONTENT)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer


@_login_router.get("/me")
async def who_am_i(principal: SignedIn) -> dict[str, Any]:
    """Return the account that is logged in."""
    return {
        "login": principal.login,
        "display_name": principal.display_name,
        "role": principal.role,
        "language": principal.language,
        "engineer_id": principal.engineer_id,
        "customer_id": principal.customer_id,
    }


@_login_router.get("/health", dependencies=[Depends(anyone)])
async def answer_health(request: Request) -> dict[str, str]:
    """Say that the API runs and its database answers."""
    async with edge_of(request).pool.connection() as conn:
        await conn.execute("SELECT 1")
    return {"status": "ok"}


LOGIN = Part(_login_router)


def guards(router: APIRouter) -> Iterator[tuple[str, str, frozenset[Role] | None]]:
    """Yield method, path and the roles let in, of every route of a router; None stands for everyone.

    Raises:
        UnguardedRoute: a route says neither.
    """
    for route in router.routes:
        path = str(getattr(route, "path", route))
        calls = (
            {d.call for d in route.dependant.dependencies} if isinstance(route, APIRoute | APIWebSocketRoute) else set()
        )
        allowed = [call.roles for call in calls if isinstance(call, Require)]
        if not allowed and anyone not in calls:
            raise UnguardedRoute(path=path)
        roles = frozenset.intersection(*allowed) if allowed else None
        for method in sorted(getattr(route, "methods", None) or {"WEBSOCKET"}):
            yield method, path, roles


def create_app(
    pool: Pool,
    *,
    parts: Sequence[Part],
    mounts: Mapping[str, ASGIApp] | None = None,
    session: timedelta = timedelta(hours=12),
    now: Callable[[], datetime] = clock.now,
) -> FastAPI:
    """Return the application of all parts, with login and error handling; the caller opens the pool.

    Args:
        pool: connections under `DatabaseRole.API`.
        parts: routers, flat, each route guarded, with the problems they raise.
        mounts: path -> application that anyone may call: static files.
        session: how long a login lasts.
        now: tells the time of a request.

    Raises:
        UnguardedRoute: a route does not say who may call it.
    """
    app = FastAPI(
        title="Fettle",
        version="1",
        description="Tickets, dispatch and reports. Errors are problem documents (RFC 9457), in Chinese or English.",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # its page loads programs from elsewhere
        redoc_url=None,
    )
    app.state.edge = Edge(pool, now, session)
    table = dict(PROBLEMS)
    for part in (LOGIN, *parts):
        list(guards(part.router))
        app.include_router(part.router)
        table |= part.problems
    for path, mounted in (mounts or {}).items():
        app.mount(path, mounted)

    async def tell(request: Request, error: Exception) -> Response:
        return problems.tell(table, request, error)

    for kind in {FettleError, Exception, *table}:
        app.add_exception_handler(kind, tell)
    app.add_exception_handler(RequestValidationError, problems.tell_validation)
    app.add_exception_handler(HTTPException, problems.tell_http)
    app.add_middleware(_Shield)
    return app
