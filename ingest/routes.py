"""`POST /api/v1/readings`: readings over HTTP, for devices and programs that do not speak MQTT.

with readings_part(settings, url=url) as part:      # a part of the web application
    app = create_app(pool, parts=[..., part])
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from fettle.http import Part, Principal, require
from fettle.model import Role
from fettle.problems import ProblemKind
from fettle.settings import Settings
from fettle.words import Words
from ingest.api import writer_options
from ingest.http_intake import MOST_READINGS, HttpIntake, StorageUnavailable, read_request

PROBLEMS: Mapping[type[Exception], ProblemKind] = {
    StorageUnavailable: ProblemKind(503, "storage-unavailable", Words("Readings cannot be stored now", "暂时无法保存读数"), "暂时无法保存读数（{why}）。请稍后重发同一请求；已保存的读数会被识别。"),
}  # fmt: skip

_READING = {
    "type": "object",
    "required": ["site", "machine", "sensor", "value"],
    "additionalProperties": False,
    "properties": {
        "site": {"type": "string"},
        "machine": {"type": "string", "description": "Equipment number."},
        "sensor": {"type": "string"},
        "ts": {
            "description": "Milliseconds since 1970, or ISO 8601; the time of receipt where absent.",
            "oneOf": [{"type": "number"}, {"type": "string"}, {"type": "null"}],
        },
        "value": {"oneOf": [{"type": "number"}, {"type": "boolean"}, {"type": "string"}, {"type": "null"}]},
        "unit": {"type": "string"},
        "quality": {"enum": ["good", "bad", "stale"]},
    },
}
_BODY = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "type": "object",
                "required": ["readings"],
                "properties": {"readings": {"type": "array", "items": _READING, "maxItems": MOST_READINGS}},
            }
        }
    },
}
Sender = Annotated[Principal, Depends(require(Role.MACHINE_ACCOUNT, Role.ADMIN))]


@contextmanager
def readings_part(settings: Settings, *, url: str) -> Iterator[Part]:
    """Yield the part of the web application that takes readings; it opens its writer with the first request."""
    intake = HttpIntake(url, name=settings.collector_name, options=writer_options(settings))
    router = APIRouter(prefix="/api/v1", tags=["readings"])

    @router.post(
        "/readings",
        summary="Store readings",
        description="All or nothing is accepted; readings that are stored already are counted and change nothing, so a request may be repeated.",
        openapi_extra={"requestBody": _BODY},
    )
    async def store_readings(request: Request, principal: Sender) -> JSONResponse:
        body = await request.body()
        posted = read_request(body)
        outcome = await intake.store(posted, tenant_id=principal.tenant_id, body=body)
        return JSONResponse(
            {
                "received": len(posted),
                "stored": outcome.stored,
                "duplicates": outcome.duplicates,
                "collisions": outcome.collisions,
                "rejected": outcome.rejected,
                "ignored": outcome.ignored,
            }
        )

    try:
        yield Part(router, PROBLEMS)
    finally:
        intake.close()
