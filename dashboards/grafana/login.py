"""The tenant's own database login: what Grafana, and anyone who writes SQL for a tenant, connects as.

    fettle_tenant (no login, SELECT on schema report)
        └── fettle_tenant_7 (login): bound to tenant 7 by its name, read-only, with a time-out

Whatever such a login sends, it sees its tenant's rows of `report.*` and nothing else, because the views ask who the login
is and not what a setting says.
"""

import secrets
from dataclasses import dataclass

from psycopg import sql

from fettle.db import SyncConn
from fettle.errors import FettleError

_SHORTEST = 12


class NoSuchTenant(FettleError):
    """There is no tenant {slug}. Set FETTLE_TENANT to one that exists, or run `fettle migrate` to make it."""


class WeakPassword(FettleError):
    """The password for {login} has {length} characters; a login that others reach over the network needs at least 12. Set FETTLE_GRAFANA_DB_PASSWORD to a longer one, or leave it empty to have one made up."""


@dataclass(frozen=True, slots=True)
class Login:
    """A database login; `password` is None where it existed and was left as it is."""

    name: str
    tenant_id: int
    password: str | None
    is_new: bool
    is_generated: bool


def ensure_login(conn: SyncConn, *, tenant: str, password: str | None, renew: bool = False) -> Login:
    """Make the login of a tenant, or bring it up to date.

    Args:
        conn: as the owner of the schema.
        tenant: slug of the tenant.
        password: to set; None makes one up for a new login and leaves an existing one alone.
        renew: make up a new password even though the login exists.

    Raises:
        NoSuchTenant: there is none of that slug.
        WeakPassword: shorter than twelve characters.
    """
    row = conn.execute("SELECT id FROM tenant WHERE slug = %(slug)s", {"slug": tenant}).fetchone()
    if row is None:
        raise NoSuchTenant(slug=tenant)
    tenant_id = int(row[0])
    name = f"fettle_tenant_{tenant_id}"
    if password is not None and len(password) < _SHORTEST:
        raise WeakPassword(login=name, length=len(password))
    found = conn.execute(
        "SELECT rolcanlogin, rolbypassrls FROM pg_roles WHERE rolname = %(name)s", {"name": name}
    ).fetchone()
    exists, is_usable = found is not None, found is not None and bool(found[0])
    is_generated = password is None and (renew or not is_usable)
    chosen = secrets.token_urlsafe(24) if is_generated else password
    role = sql.Identifier(name)
    with conn.transaction():
        if not exists:
            conn.execute(sql.SQL("CREATE ROLE {} LOGIN CONNECTION LIMIT 30 IN ROLE fettle_tenant").format(role))
        else:
            conn.execute(sql.SQL("ALTER ROLE {} LOGIN").format(role))
            if found is not None and found[1]:  # an owner that is no superuser may not even mention it
                conn.execute(sql.SQL("ALTER ROLE {} NOBYPASSRLS").format(role))
            conn.execute(sql.SQL("GRANT fettle_tenant TO {}").format(role))
        if chosen is not None:
            conn.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(chosen)))
        for setting, value in (
            ("default_transaction_read_only", "on"),
            ("statement_timeout", "30s"),
            ("idle_in_transaction_session_timeout", "60s"),
            ("search_path", "report"),
            ("timezone", "UTC"),
        ):
            conn.execute(
                sql.SQL("ALTER ROLE {} SET {} TO {}").format(role, sql.Identifier(setting), sql.Literal(value))
            )
    return Login(name, tenant_id, chosen, not is_usable, is_generated)
