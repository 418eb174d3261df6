"""Which sensor a place in the topic space is: names to ids, in memory and in the database.

The collector's event loop asks `find`; what it does not find is resolved by the writer thread, which registers unknown
machines and sensors under their tenant (or refuses them, as the settings say) and remembers them here. Registration is
a transaction of its own before the batch's: it can be repeated, so a crash in between costs nothing, and an id in
memory is always an id that is committed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fettle.db import SyncConn, load_queries
from fettle.model import SignalKind, read_unit
from ingest.batch import Wanted
from ingest.decode import Path

queries = load_queries("ingest")
UNIT_MISMATCH = "unit_mismatch"  # the reason of a refusal
_REFUSAL_LASTS_S = 5.0
_AT_ONCE = 5000  # places registered by one statement: bounds how long its locks last


class Sensor(NamedTuple):
    """One sensor as the collector needs it."""

    id: int
    kind: str
    unit: str
    is_enabled: bool


class Refused(NamedTuple):
    """Why a place has no sensor, until when that is believed."""

    reason: str
    detail: str
    until_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistrationPolicy:
    """What happens to places that nobody has entered in the catalogue."""

    unknown: Literal["register", "reject"] = "register"
    max_sensors: int = 200_000


class Catalogue:
    """Sensors by tenant and path. The event loop reads, the writer thread writes; single dict operations are atomic."""

    def __init__(self, policy: RegistrationPolicy) -> None:
        self.policy = policy
        self.tenants: dict[str, int] = {}
        self._sensors: dict[tuple[str, Path], Sensor] = {}
        self._refused: dict[tuple[str, Path], Refused] = {}
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._sensors)

    def find(self, tenant: str, path: Path, unit: str | None) -> Sensor | None:
        """Return the sensor of a place, or None where the writer has to resolve it first."""
        sensor = self._sensors.get((tenant, path))
        if sensor is not None and unit and not sensor.unit:
            return None
        return sensor

    def resolve(self, conn: SyncConn, wanted: Iterable[Wanted], *, now_s: float) -> dict[Wanted, Sensor | Refused]:
        """Find or register every wanted place; one transaction per tenant and `_AT_ONCE` places."""
        found: dict[Wanted, Sensor | Refused] = {}
        by_tenant: dict[str, list[Wanted]] = {}
        for want in dict.fromkeys(wanted):
            known = self._answer(want, now_s)
            if known is None:
                by_tenant.setdefault(want.tenant, []).append(want)
            else:
                found[want] = known
        for tenant, wants in sorted(by_tenant.items()):
            tenant_id = self.tenant_id(conn, tenant)
            if tenant_id is None:
                for want in wants:
                    detail = f"tenant {tenant!r} is not known; fettle migrate --tenant makes one"
                    found[want] = self._refuse(want, "unknown_tenant", detail, now_s)
                continue
            wants.sort(key=lambda want: want.path)
            for start in range(0, len(wants), _AT_ONCE):
                found.update(self._resolve_some(conn, tenant_id, wants[start : start + _AT_ONCE], now_s))
        return found

    def tenant_id(self, conn: SyncConn, tenant: str) -> int | None:
        found = self.tenants.get(tenant)
        if found is None:
            self.tenants.update({slug: key for key, slug in conn.execute(queries.list_tenants)})
            found = self.tenants.get(tenant)
        return found

    def slug(self, conn: SyncConn, tenant_id: int) -> str:
        """Return the slug of a tenant that exists."""
        slugs = {key: slug for slug, key in self.tenants.items()}
        if tenant_id not in slugs:
            slugs = dict(conn.execute(queries.list_tenants).fetchall())
        return slugs[tenant_id]

    def _answer(self, want: Wanted, now_s: float) -> Sensor | Refused | None:
        sensor = self.find(want.tenant, want.path, want.unit)
        if sensor is not None:
            return sensor
        refused = self._refused.get((want.tenant, want.path))
        return refused if refused is not None and refused.until_s > now_s else None

    def _refuse(self, want: Wanted, reason: str, detail: str, now_s: float) -> Refused:
        if len(self._refused) > 100_000:
            self._refused.clear()
        refused = Refused(reason, detail, now_s + _REFUSAL_LASTS_S)
        self._refused[want.tenant, want.path] = refused
        return refused

    def _resolve_some(
        self, conn: SyncConn, tenant_id: int, wants: list[Wanted], now_s: float
    ) -> dict[Wanted, Sensor | Refused]:
        with conn.transaction():
            conn.execute(queries.name_tenant, {"tenant_id": tenant_id})
            sensors = self._read(conn, tenant_id, wants)
            missing = [want for want in wants if want.path not in sensors]
            refusals: dict[Wanted, Sensor | Refused] = {}
            if missing and self.policy.unknown == "reject":
                for want in missing:
                    refusals[want] = self._refuse(want, "unknown_sensor", f"{'/'.join(want.path)} is not in the catalogue and FETTLE_COLLECTOR_UNKNOWN=reject", now_s)  # fmt: skip
            elif missing:
                room = max(self.policy.max_sensors - self._count(conn, tenant_id), 0)
                beyond = set(list(dict.fromkeys(want.path for want in missing))[room:])
                for want in missing:
                    if want.path in beyond:
                        refusals[want] = self._refuse(want, "too_many_sensors", f"the tenant has {self.policy.max_sensors} sensors already; see FETTLE_COLLECTOR_MAX_SENSORS", now_s)  # fmt: skip
                admitted = [want for want in missing if want not in refusals]
                if admitted:
                    self._register(conn, tenant_id, admitted)
                    sensors |= self._read(conn, tenant_id, admitted)
            self._name_units(conn, tenant_id, wants, sensors)
        for want in wants:
            if want.path in sensors:
                self._sensors[want.tenant, want.path] = sensors[want.path]
        return refusals | {want: sensors[want.path] for want in wants if want.path in sensors}

    @staticmethod
    def _count(conn: SyncConn, tenant_id: int) -> int:
        row = conn.execute(queries.count_sensors, {"tenant_id": tenant_id}).fetchone()
        return int(row[0]) if row else 0

    @staticmethod
    def _read(conn: SyncConn, tenant_id: int, wants: list[Wanted]) -> dict[Path, Sensor]:
        rows = conn.execute(queries.find_sensors, {"tenant_id": tenant_id, **_places(wants)})
        return {wants[i].path: Sensor(key, kind, unit, enabled) for i, key, kind, unit, enabled in rows}

    @staticmethod
    def _register(conn: SyncConn, tenant_id: int, wants: list[Wanted]) -> None:
        # the first message that names a unit decides, not the first message
        wants = sorted(wants, key=lambda want: (want.path, not want.unit))
        units = [read_unit(want.unit) for want in wants]
        values = {
            "tenant_id": tenant_id,
            **_places(wants),
            "kinds": [kind.value for kind, _ in units],
            "units": [unit for _, unit in units],
        }
        conn.execute(queries.register_sites, values)
        conn.execute(queries.register_machines, values)
        conn.execute(queries.register_sensors, values)

    @staticmethod
    def _name_units(conn: SyncConn, tenant_id: int, wants: list[Wanted], sensors: dict[Path, Sensor]) -> None:
        named: dict[Path, tuple[SignalKind, str]] = {}
        for want in wants:
            sensor = sensors.get(want.path)
            if sensor is not None and want.unit and not sensor.unit:
                named.setdefault(want.path, read_unit(want.unit))
        if not named:
            return
        conn.execute(
            queries.name_units,
            {
                "tenant_id": tenant_id,
                "ids": [sensors[path].id for path in named],
                "kinds": [kind.value for kind, _ in named.values()],
                "units": [unit for _, unit in named.values()],
            },
        )
        # as it is now: another process may have named it first
        sensors |= Catalogue._read(conn, tenant_id, [want for want in wants if want.path in named])


def _places(wants: list[Wanted]) -> dict[str, list[str]]:
    return {
        "sites": [want.path[0] for want in wants],
        "machines": [want.path[1] for want in wants],
        "sensors": [want.path[2] for want in wants],
    }


def is_other_quantity(sensor: Sensor, unit: str) -> bool:
    """Whether storing a value of `unit` under the sensor would mix two scales; a unit we do not know is let through."""
    kind, canonical = read_unit(unit)
    return kind is not SignalKind.OTHER and bool(sensor.unit) and canonical != sensor.unit


def say_mismatch(sensor: Sensor, path: Path, unit: str) -> str:
    return f"{'/'.join(path)} is in {sensor.unit}, the message says {unit}"
