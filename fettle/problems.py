"""Errors as problem documents (RFC 9457): which error gives which status, told in Chinese or English.

    {"type": "urn:fettle:problem:invalid-fields", "title": ..., "status": 422, "detail": ..., "instance": "/api/v1/tickets",
     "code": "invalid-fields", "errors": [{"field": "region", "code": "missing", "remedy": "Give the region ..."}]}

`PROBLEMS` is the table of errors that any route may raise; each package's routes bring one of their own. The English
detail of an error is its own message. `code` never changes; titles and details may.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import NamedTuple

import psycopg
import psycopg_pool
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection

from fettle import logs
from fettle.errors import FettleError
from fettle.words import InvalidFields, Language, Words

log = logs.get("http")


class NotLoggedIn(FettleError):
    """Log in first: send a token as 'Authorization: Bearer …' or the session cookie."""


class WrongPassword(FettleError):
    """The login name or the password is wrong."""


class TooManyAttempts(FettleError):
    """Too many failed attempts. Try again in {wait_s} seconds."""


class NotAllowed(FettleError):
    """The role {role} may not do this; it takes one of: {allowed}."""


class CrossSite(FettleError):
    """A request with the session cookie must come from a page of this site. Programs use a bearer token instead."""


class VersionMissing(FettleError):
    """Send the version you saw as the header If-Match, for example If-Match: "3" (it is the ETag of the resource)."""


class VersionUnreadable(FettleError):
    """The header If-Match must be one quoted version number, for example "3"; it is {given}."""


class KeyReused(FettleError):
    """The Idempotency-Key {key} was used for another request. Use a new key for a new request."""


class ProblemKind(NamedTuple):
    """How an error is told: status, a stable code, the title, and its detail in Chinese (English is the error's own message)."""

    status: int
    code: str
    title: Words
    detail_zh: str


_UNUSABLE = ProblemKind(
    422,
    "unusable-value",
    Words("A value cannot be stored", "无法保存该值"),
    "某个值无法保存：可能过大，或含有空字符等无法保存的字符。",
)

PROBLEMS: dict[type[Exception], ProblemKind] = {
    InvalidFields: ProblemKind(422, "invalid-fields", Words("Some fields need attention", "部分字段需要修改"), "请求中有 {count} 个字段无效。"),
    NotLoggedIn: ProblemKind(401, "not-logged-in", Words("Not logged in", "尚未登录"), "请先登录：使用会话 Cookie，或在 Authorization 请求头中携带 Bearer 令牌。"),
    WrongPassword: ProblemKind(401, "wrong-password", Words("Login failed", "登录失败"), "登录名或密码错误。"),
    TooManyAttempts: ProblemKind(429, "too-many-attempts", Words("Too many attempts", "尝试次数过多"), "登录失败次数过多，请在 {wait_s} 秒后重试。"),
    NotAllowed: ProblemKind(403, "not-allowed", Words("Not allowed", "没有权限"), "角色 {role} 无权执行此操作；需要以下角色之一：{allowed}。"),
    CrossSite: ProblemKind(403, "cross-site", Words("Cross-site request refused", "拒绝跨站请求"), "携带会话 Cookie 的请求必须来自本站页面；程序请改用 Bearer 令牌。"),
    VersionMissing: ProblemKind(428, "version-missing", Words("Version required", "缺少版本号"), '请在 If-Match 请求头中给出您看到的版本（即资源的 ETag），例如 If-Match: "3"。'),
    VersionUnreadable: ProblemKind(400, "version-unreadable", Words("Version not understood", "无法识别版本号"), 'If-Match 请求头必须是一个带引号的版本号，例如 "3"；收到的是 {given}。'),
    KeyReused: ProblemKind(422, "idempotency-key-reused", Words("Key used before", "幂等键已被使用"), "幂等键 {key} 已用于另一个请求；新的请求请使用新的键。"),
    psycopg.OperationalError: ProblemKind(503, "database-unavailable", Words("Database unavailable", "数据库不可用"), "数据库暂时不可用，请稍后重试。"),
    psycopg.DataError: _UNUSABLE,
    UnicodeEncodeError: _UNUSABLE,  # half of a surrogate pair
    psycopg_pool.PoolTimeout: ProblemKind(503, "busy", Words("Busy", "系统繁忙"), "系统繁忙，请稍后重试。"),
}  # fmt: skip

_PLAIN = {  # answers of the framework itself
    400: ProblemKind(
        400, "bad-request", Words("Bad request", "请求有误"), "请求体无法读取，请使用 UTF-8 编码的 JSON。"
    ),
    404: ProblemKind(404, "no-such-page", Words("Nothing here", "页面不存在"), "此地址没有内容。"),
    405: ProblemKind(405, "method-not-allowed", Words("Method not allowed", "不支持的方法"), "此地址不支持该方法。"),
    413: ProblemKind(413, "body-too-large", Words("Body too large", "请求体过大"), "请求体过大。"),
    415: ProblemKind(
        415, "unsupported-media-type", Words("Format not supported", "不支持的格式"), "不支持该内容格式。"
    ),
    500: ProblemKind(
        500, "internal", Words("Something went wrong", "系统内部错误"), "系统内部错误，已记录日志；请联系管理员。"
    ),
}

_ENGLISH = {  # of errors whose own message is not for callers
    "bad-request": "The body cannot be read. Send JSON in UTF-8.",
    "no-such-page": "There is nothing at this address.",
    "method-not-allowed": "This address does not take that method.",
    "database-unavailable": "The database cannot answer now. Try again shortly.",
    "busy": "Too many requests at once. Try again shortly.",
    "unusable-value": "A value cannot be stored: it is too large, or has a null character or half a character in it.",
}

# Remedies for what the framework finds wrong with a field, by kind of error; its own message covers the rest.
_REMEDIES = {
    "missing": Words("{field} is missing. Give it a value.", "缺少 {field}，请填写。"),
    "string_type": Words("{field} must be text. Put it in quotes.", "{field} 必须是文本，请加引号。"),
    "string_too_short": Words("{field} is too short.", "{field} 太短。"),
    "string_too_long": Words("{field} is longer than {max_length} characters. Shorten it.", "{field} 超过 {max_length} 个字符，请缩短。"),
    "int_parsing": Words("{field} must be a whole number.", "{field} 必须是整数。"),
    "int_type": Words("{field} must be a whole number.", "{field} 必须是整数。"),
    "float_parsing": Words("{field} must be a number.", "{field} 必须是数字。"),
    "greater_than_equal": Words("{field} must be at least {ge}.", "{field} 不能小于 {ge}。"),
    "less_than_equal": Words("{field} must be at most {le}.", "{field} 不能大于 {le}。"),
    "enum": Words("{field} must be one of: {expected}.", "{field} 必须是以下之一：{expected}。"),
    "literal_error": Words("{field} must be one of: {expected}.", "{field} 必须是以下之一：{expected}。"),
    "datetime_from_date_parsing": Words("{field} must be a time such as 2026-05-01T08:00:00+08:00.", "{field} 必须是时间，例如 2026-05-01T08:00:00+08:00。"),
    "timezone_aware": Words("{field} needs a time zone, for example 2026-05-01T08:00:00+08:00.", "{field} 需要时区，例如 2026-05-01T08:00:00+08:00。"),
    "extra_forbidden": Words("{field} is not known here. Leave it out, or check its spelling.", "不认识 {field}，请删除或检查拼写。"),
    "json_invalid": Words("The body is not valid JSON.", "请求体不是有效的 JSON。"),
    "model_attributes_type": Words("The body must be a JSON object. Send it with Content-Type: application/json.", "请求体必须是 JSON 对象，请使用 Content-Type: application/json。"),
}  # fmt: skip


def language_of(headers: Headers) -> Language:
    """Return the language of Accept-Language that we speak best; English without one."""
    best: tuple[float, Language] = (0.0, "en")
    for part in headers.get("accept-language", "").split(","):
        tag, _, weight = part.strip().partition(";q=")
        name = tag.strip().lower().split("-")[0]
        try:
            quality = float(weight or 1)
        except ValueError:
            continue
        if name == "zh" and quality > best[0]:
            best = (quality, "zh")
        elif name == "en" and quality > best[0]:
            best = (quality, "en")
    return best[1]


def problem(
    request: HTTPConnection,
    kind: ProblemKind,
    *,
    detail: str,
    errors: Sequence[Mapping[str, object]] = (),
    extra: Mapping[str, object] | None = None,
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """Return a problem document, RFC 9457."""
    language = language_of(request.headers)
    body: dict[str, object] = {
        "type": f"urn:fettle:problem:{kind.code}",
        "title": kind.title.say(language, {}),
        "status": kind.status,
        "detail": detail,
        "instance": request.url.path,
        "code": kind.code,
        **(extra or {}),
    }
    if errors:
        body["errors"] = list(errors)
    fixed = {"Content-Language": language, "Cache-Control": "no-store"}
    return JSONResponse(body, kind.status, headers={**fixed, **(headers or {})}, media_type="application/problem+json")


def tell(table: Mapping[type[Exception], ProblemKind], request: Request, error: Exception) -> Response:
    """Turn an error into its problem document; one that no table knows is our own fault: 500."""
    kind = next((table[base] for base in type(error).__mro__ if base in table), None)
    if kind is None:
        log.error("request.failed", method=request.method, path=request.url.path, error=type(error).__name__)
        kind = _PLAIN[500]
        return problem(request, kind, detail=_internal(language_of(request.headers)))
    language = language_of(request.headers)
    data = error.data if isinstance(error, FettleError) else {}
    detail = kind.detail_zh.format(**data) if language == "zh" else str(error)
    if not isinstance(error, FettleError):
        log.warning("request.unserved", path=request.url.path, why=str(error).strip())
        detail = kind.detail_zh if language == "zh" else _ENGLISH[kind.code]
    fields = getattr(error, "fields", ())
    errors = [{"field": f.field, "code": f.code, "remedy": f.words.say(language, {"field": f.field})} for f in fields]
    headers: dict[str, str] = {}
    if kind.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, TooManyAttempts):
        headers["Retry-After"] = str(data["wait_s"])
    extra = {"allowed": data["allowed_states"]} if "allowed_states" in data else None
    return problem(request, kind, detail=detail, errors=errors, extra=extra, headers=headers)


def _internal(language: Language) -> str:
    return (
        _PLAIN[500].detail_zh if language == "zh" else "This is our fault and has been logged. Tell an administrator."
    )


def tell_validation(request: Request, error: Exception) -> Response:
    """Name each field that the framework found missing or wrong, with its remedy."""
    assert isinstance(error, RequestValidationError)
    language = language_of(request.headers)
    errors = []
    for found in error.errors():
        place = [str(part) for part in found["loc"]]
        name = ".".join(place[1:]) if len(place) > 1 and found["type"] != "json_invalid" else place[0]
        words = _REMEDIES.get(found["type"])
        text = words.say(language, {"field": name, **found.get("ctx", {})}) if words else f"{name}: {found['msg']}"
        errors.append({"field": name, "code": found["type"].replace("_", "-"), "remedy": text})
    kind = PROBLEMS[InvalidFields]
    detail = kind.detail_zh if language == "zh" else str(InvalidFields.__doc__)
    detail = detail.format(count=len(errors))
    return problem(request, kind, detail=detail, errors=errors)


def tell_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = _PLAIN.get(error.status_code) or ProblemKind(
        error.status_code, f"http-{error.status_code}", Words(str(error.detail), str(error.detail)), str(error.detail)
    )
    detail = kind.detail_zh if language_of(request.headers) == "zh" else _ENGLISH.get(kind.code, str(error.detail))
    return problem(request, kind, detail=detail, headers=error.headers)
