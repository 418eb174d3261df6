"""Encrypted and authenticated, or not at all: a broker that is not trusted learns nothing, and new certificates cost nothing."""

import asyncio
import os
import shutil
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from fettle import embedded
from fettle.embedded import Broker
from ingest.packets import ConnectRefused
from ingest.session import BadCertificate, CertificateRefused, NotTrusted

USER, PASSWORD = "collector", "a long enough password"


@dataclass(frozen=True)
class Authority:
    """A certificate authority in a folder."""

    folder: Path

    @property
    def certificate(self):
        return self.folder / "ca.crt"

    def issue(self, name, *, alternatives=""):
        """Make a certificate and its key; return their paths."""
        key, request, certificate = (self.folder / f"{name}.{kind}" for kind in ("key", "csr", "crt"))
        extensions = self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternatives}\n" if alternatives else "basicConstraints=CA:FALSE\n")
        _openssl("req", "-new", *_NEW_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        _openssl("x509", "-req", "-in", request, "-CA", self.certificate, "-CAkey", self.folder / "ca.key", "-CAcreateserial", "-out", certificate, "-days", "2", "-extfile", extensions)  # fmt: skip
        return certificate, key


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*words):
    subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)


@pytest.fixture
def authority(tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("the program openssl, which makes the certificates, is not installed")
    if embedded.mosquitto_program() is None or shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto or mosquitto_passwd is not installed (Debian package: mosquitto)")

    def make(name="plant"):
        folder = tmp_path / name
        folder.mkdir()
        _openssl("req", "-x509", *_NEW_KEY, "-keyout", folder / "ca.key", "-out", folder / "ca.crt", "-days", "2", "-subj", f"/CN={name}")  # fmt: skip
        return Authority(folder)

    return make


class SecureBroker:
    """A Mosquitto with an encrypted listener that asks who is there, and an open one for devices of the test."""

    def __init__(self, folder, *, needs_certificate):
        folder.mkdir()
        self.folder, self.needs_certificate = folder, needs_certificate
        self.secure, self.plain = (Broker("127.0.0.1", embedded.free_port(), "given") for _ in range(2))
        self._child = None

    def certify(self, authority, server):
        """Take these as the broker's own certificate and as the authority of its clients."""
        for source, name in zip((authority.certificate, *server), ("ca.crt", "server.crt", "server.key"), strict=True):
            shutil.copy(source, self.folder / name)

    def start(self):
        passwords, access, conf = (self.folder / name for name in ("passwords", "access", "mosquitto.conf"))
        subprocess.run(["mosquitto_passwd", "-c", "-b", passwords, USER, PASSWORD], check=True, capture_output=True)
        access.write_text(f"user {USER}\ntopic read fettle/#\ntopic write fettle-collector/#\n")
        identity = "require_certificate true\nuse_identity_as_username true" if self.needs_certificate else f"password_file {passwords}"  # fmt: skip
        conf.write_text(f"""per_listener_settings true
persistence true
persistence_location {self.folder}/
max_queued_messages 0
{"user root" if os.geteuid() == 0 else ""}
listener {self.secure.port} 127.0.0.1
allow_anonymous false
{identity}
acl_file {access}
cafile {self.folder}/ca.crt
certfile {self.folder}/server.crt
keyfile {self.folder}/server.key
listener {self.plain.port} 127.0.0.1
allow_anonymous true
""")
        for file in self.folder.iterdir():
            file.chmod(0o600)
        with (self.folder / "broker.log").open("ab") as log:
            self._child = subprocess.Popen([embedded.mosquitto_program(), "-v", "-c", conf], stdout=log, stderr=log)
        embedded._wait_for_port(self._child, self.plain.port, self.folder / "broker.log")

    def stop(self):
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()
            self._child.wait(10)

    def log(self):
        return (self.folder / "broker.log").read_text(errors="replace")


@pytest.fixture
def secured(tmp_path):
    """Run a broker with a certificate of this authority."""

    @contextmanager
    def run(authority, *, needs_certificate=False, alternatives="IP:127.0.0.1"):
        broker = SecureBroker(tmp_path / "broker", needs_certificate=needs_certificate)
        broker.certify(authority, authority.issue("server", alternatives=alternatives))
        broker.start()
        try:
            yield broker
        finally:
            broker.stop()

    return run


def _login(authority):
    return {"broker_username": USER, "broker_password": PASSWORD, "broker_tls_ca": authority.certificate}


def _messages(reading, first, count):
    return [(f"fettle/default/s1/m{i % 5}/v", reading(i, n=i)) for i in range(first, first + count)]


async def test_messages_arrive_over_tls_with_a_password(
    plain_database, authority, secured, collecting, publish, reading, rows
):
    ca = authority()
    with secured(ca) as broker:
        async with collecting(plain_database, broker.secure, **_login(ca)) as running:
            await publish(broker.plain, _messages(reading, 0, 500))
            await running.settle(500)
    assert rows(plain_database, "SELECT count(*), sum(value) FROM reading") == [(500, sum(range(500)))]


async def test_a_broker_of_another_authority_is_refused_and_learns_no_password(
    plain_database, authority, secured, collecting
):
    with secured(authority()) as broker:
        with pytest.raises(NotTrusted, match=r"self.signed|unable to get") as caught:
            async with collecting(plain_database, broker.secure, **_login(authority("stranger"))):
                pass
        assert "FETTLE_BROKER_TLS_CA" in str(caught.value)
        time.sleep(0.2)  # noqa: ASYNC251 -- the broker writes its log when it pleases
        assert "New client connected" not in broker.log()
        assert USER not in broker.log()


@pytest.mark.parametrize("alternatives", ["DNS:broker.example", "IP:127.0.0.9"])
async def test_a_certificate_that_names_another_host_is_refused(
    plain_database, authority, secured, collecting, alternatives
):
    ca = authority()
    with secured(ca, alternatives=alternatives) as broker:
        with pytest.raises(NotTrusted, match=r"127\.0\.0\.1.*certificate names the host"):
            async with collecting(plain_database, broker.secure, **_login(ca)):
                pass
        assert USER not in broker.log()


async def test_a_wrong_password_ends_the_collector_with_a_remedy(plain_database, authority, secured, collecting):
    ca = authority()
    with secured(ca) as broker:
        with pytest.raises(ConnectRefused, match="FETTLE_BROKER_PASSWORD"):
            async with collecting(plain_database, broker.secure, **_login(ca) | {"broker_password": "another"}):
                pass


async def test_a_certificate_file_that_is_none_is_named(plain_database, authority, secured, collecting, tmp_path):
    ca = authority()
    (tmp_path / "empty.crt").write_text("")
    with secured(ca) as broker:
        for setting, path in (("broker_tls_ca", tmp_path / "absent.crt"), ("broker_tls_cert", tmp_path / "empty.crt")):
            with pytest.raises(BadCertificate, match=f"FETTLE_{setting.upper()}.*{path.name}"):
                async with collecting(plain_database, broker.secure, **_login(ca) | {setting: path}):
                    pass


async def test_a_client_certificate_is_the_identity(
    plain_database, authority, secured, collecting, publish, reading, rows
):
    ca = authority()
    certificate, key = ca.issue(USER)
    with secured(ca, needs_certificate=True) as broker:
        async with collecting(
            plain_database, broker.secure, broker_tls_ca=ca.certificate, broker_tls_cert=certificate, broker_tls_key=key
        ) as running:
            await publish(broker.plain, _messages(reading, 0, 100))
            await running.settle(100)
    assert rows(plain_database, "SELECT count(*) FROM reading") == [(100,)]


@pytest.mark.parametrize("whose", ["nobody", "stranger"])
async def test_without_a_client_certificate_of_the_right_authority_there_is_no_way_in(
    plain_database, authority, secured, collecting, whose
):
    ca = authority()
    more = {}
    if whose == "stranger":
        certificate, key = authority("stranger").issue(USER)
        more = {"broker_tls_cert": certificate, "broker_tls_key": key}
    with secured(ca, needs_certificate=True) as broker:
        with pytest.raises(CertificateRefused, match="FETTLE_BROKER_TLS_CERT"):
            async with collecting(plain_database, broker.secure, broker_tls_ca=ca.certificate, **more):
                pass
        assert "New client connected" not in broker.log()


async def test_authority_server_and_client_certificates_are_exchanged_without_loss(
    plain_database, authority, secured, collecting, publish, reading, rows, tmp_path
):
    """The files change in place; the reconnect takes them. The broker no longer accepts the old client certificate."""
    old, new = authority("old"), authority("new")
    mine = [tmp_path / name for name in ("ca.crt", "client.crt", "client.key")]

    def hand_out(ca):
        for source, target in zip((ca.certificate, *ca.issue(USER)), mine, strict=True):
            shutil.copy(source, target)

    hand_out(old)
    with secured(old, needs_certificate=True) as broker:
        settings = dict(zip(("broker_tls_ca", "broker_tls_cert", "broker_tls_key"), mine, strict=True))
        async with collecting(plain_database, broker.secure, **settings) as running:
            await publish(broker.plain, _messages(reading, 0, 300))
            await running.settle(300)
            await asyncio.to_thread(broker.stop)
            await running.until(lambda _: not running.collector.is_connected.is_set(), what="the loss of the broker")
            broker.certify(new, new.issue("server", alternatives="IP:127.0.0.1"))
            hand_out(new)
            await asyncio.to_thread(broker.start)
            await publish(broker.plain, _messages(reading, 300, 300))
            await running.until(
                lambda c: c.messages.received >= 600 and not c.messages.in_flight, what="the rest", seconds=30
            )
            assert running.collector.counters.sessions_lost == 0
            assert running.collector.counters.reconnects == 1
    assert rows(plain_database, "SELECT count(*), sum(value) FROM reading") == [(600, sum(range(600)))]
