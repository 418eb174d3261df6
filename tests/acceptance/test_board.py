"""The board in a real browser: log in, see machines, traces and a ticket on the time axis, in both sizes and languages.

Chromium is driven over its DevTools pipe. The server is the real application on a real, seeded database.
"""

import asyncio
import base64
import fcntl
import itertools
import json
import os
import select
import shutil
import subprocess
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
import uvicorn

from dashboards.api import PART
from dispatch import routes as dispatch_routes
from fettle import clock
from fettle.db import DatabaseRole, open_pool
from fettle.http import Part, create_app
from fettle.passwords import hash_password
from workorders import routes as workorders_routes

SEED = Path(__file__).parents[1] / "integration" / "dashboards" / "plant.sql"
PASSWORD = "look around"
POTENTIAL = "WO-20261122-0003"
PARTS = [
    PART,
    Part(workorders_routes.router, workorders_routes.PROBLEMS),
    Part(dispatch_routes.router, dispatch_routes.PROBLEMS),
]
SIZES = {"wide": (1440, 900), "phone": (390, 844)}


class Browser:
    """Headless Chromium with one page, spoken to in DevTools messages that end in a zero byte."""

    def __init__(self, program):
        self.folder = tempfile.mkdtemp(prefix="fettle-chromium-")
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 20) for end in (to_browser, from_browser)]

        def hand_over():
            os.dup2(ends[0], 3, inheritable=True)
            os.dup2(ends[1], 4, inheritable=True)

        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--no-first-run", "--hide-scrollbars", "--remote-debugging-pipe", f"--user-data-dir={self.folder}"],
            preexec_fn=hand_over, close_fds=False,  # noqa: PLW1509 -- dup2 is safe after fork
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        for end in (to_browser, from_browser, *ends):
            os.close(end)
        self._buffer = b""
        self._numbers = itertools.count(1)
        self.events = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.page(f"{domain}.enable")

    def _message(self):
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], 30)[0]:
                raise TimeoutError("the browser has not answered for 30 seconds")
            self._buffer += os.read(self._read, 1 << 20)
        one, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(one)

    def call(self, method, session=None, **params):
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params, **({"sessionId": session} if session else {})}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._message()).get("id") != number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def page(self, method, **params):
        return self.call(method, self.session, **params)

    def size(self, width, height, *, mobile=False, dark=False):
        self.page("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)
        scheme = "dark" if dark else "light"
        self.page("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def open(self, url):
        self.page("Page.navigate", url=url)

    def run(self, expression):
        answer = self.page("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression):
        end = clock.monotonic_s() + 30
        while not self.run(f"Boolean({expression})"):
            assert clock.monotonic_s() < end, (
                f"never true: {expression}\n{self.run('document.body.innerText')}\n{self.complaints()}"
            )

    def complaints(self):
        """What the console says: errors, refused styles and scripts, failed requests, exceptions."""
        self.run("0")
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                found.append(params["exceptionDetails"].get("exception", {}).get("description"))
            if event["method"] == "Log.entryAdded" and params["entry"]["level"] in {"error", "warning"}:
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            if event["method"] == "Runtime.consoleAPICalled" and params["type"] in {"error", "warning", "assert"}:
                found.append(str(params["args"]))
        return found

    def hosts(self):
        return {
            event["params"]["request"]["url"].split("/")[2]
            for event in self.events
            if event["method"] == "Network.requestWillBeSent" and event["params"]["request"]["url"].startswith("http")
        }

    def picture(self, path):
        path.write_bytes(base64.b64decode(self.page("Page.captureScreenshot", format="png")["data"]))

    def close(self):
        try:
            self.call("Browser.close")
            self.process.wait(10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self._read)
        os.close(self._write)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def browser():
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on the PATH (Debian package: chromium)")
    one = Browser(program)
    yield one
    one.close()


@contextmanager
def served(url):
    """Run the application in a thread of its own, on a free port."""
    ready, place = threading.Event(), {}

    async def serve():
        pool = open_pool(url, role=DatabaseRole.API, name="board-acceptance", size=4)
        async with pool:
            server = uvicorn.Server(
                uvicorn.Config(create_app(pool, parts=PARTS), port=0, log_config=None, lifespan="off")
            )
            task = asyncio.create_task(server.serve())
            while not server.started:  # noqa: ASYNC110 -- uvicorn offers no event
                await asyncio.sleep(0.02)
            place["server"], place["port"] = server, server.servers[0].sockets[0].getsockname()[1]
            ready.set()
            await task

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(30)
    yield f"http://127.0.0.1:{place['port']}"
    place["server"].should_exit = True
    thread.join(30)


@pytest.fixture
def site(plain_database):
    with psycopg.connect(plain_database.url, autocommit=True) as conn:
        conn.execute(SEED.read_text(encoding="utf-8").replace("HASH", hash_password(PASSWORD)), prepare=False)
    with served(plain_database.url) as address:
        yield address


def log_in(browser, site, login, path="/"):
    browser.open(site + path)
    browser.wait("document.querySelector('#login button')?.textContent")
    browser.run(
        f"""(() => {{ const form = document.getElementById('login'); form.login.value = {json.dumps(login)};
        form.password.value = {json.dumps(PASSWORD)}; form.requestSubmit(); }})()"""
    )
    browser.wait("document.body?.dataset.ready === 'true' && document.querySelector('.chart')")


INK = """(() => [...document.querySelectorAll('.chart canvas:first-child')].map((canvas) => {
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  const seen = new Set();
  for (let i = 0; i < pixels.length; i += 4) if (pixels[i + 3] > 200) seen.add((pixels[i] << 16) | (pixels[i + 1] << 8) | pixels[i + 2]);
  return { points: Number(canvas.dataset.drawn), colours: seen.size };
}))()"""

CLIPPED = """(() => [...document.querySelectorAll('button, h2, h3, .pill, .value, .headline')].filter((node) => {
  const style = getComputedStyle(node);
  return node.offsetParent && style.overflow === 'visible' && node.closest('.mark') === null
    && (node.scrollWidth > node.clientWidth + 2) && style.display !== 'inline';
}).map((node) => node.outerHTML.slice(0, 160)))()"""


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("login", "words"), [("anna", ("Bearing", "Act now", "Log out")), ("li", ("轴承", "立即处理", "退出"))]
)
def test_a_supervisor_sees_machines_traces_and_the_ticket(browser, site, size, login, words, tmp_path):
    width, height = SIZES[size]
    browser.size(width, height, mobile=size == "phone", dark=login == "li")
    log_in(browser, site, login)
    text = browser.run("document.body.textContent")
    for word in words:
        assert word in text
    assert browser.run("document.querySelectorAll('[data-machine]').length") == 14
    assert browser.run("document.querySelector('[data-machine][aria-current]').textContent").startswith("P-101")
    charts = browser.run(INK)
    assert len(charts) == 3
    assert all(chart["points"] > 100 and chart["colours"] > 20 for chart in charts), charts
    assert browser.run("document.querySelector('[data-mark]') !== null")
    mark = browser.run(f"document.querySelector('[data-mark=\"{POTENTIAL}\"]').getBoundingClientRect().toJSON()")
    plot = browser.run("document.querySelector('.plot').getBoundingClientRect().toJSON()")
    share = (mark["right"] - mark["left"]) / (plot["right"] - plot["left"] - 58)
    assert 0.2 < share < 0.3  # six of twenty-four hours
    assert abs(mark["right"] - (plot["right"] - 14)) < 3  # it is open: the region ends where the axis does
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run(CLIPPED) == []
    browser.picture(tmp_path / f"board-{size}-{login}.png")
    assert browser.complaints() == []
    assert browser.hosts() == {site.removeprefix("http://")}


def test_a_ticket_opens_with_its_evidence_and_closes_by_keyboard(browser, site):
    browser.size(1440, 900)
    log_in(browser, site, "anna")
    browser.run(f"document.querySelector('[data-ticket=\"{POTENTIAL}\"]').click()")
    browser.wait("!document.getElementById('detail').hidden")
    text = browser.run("document.getElementById('detail').innerText")
    for word in (
        "Vibration DE 6.42 mm/s",
        "Zone C",
        "Check the grease",
        "王伟",
        "12 km",
        "Dispatched",
        "temperature follows",
    ):
        assert word in text, word
    assert f"ticket={POTENTIAL}" in browser.run("location.search")
    assert browser.run("document.activeElement.id") == "detail"
    browser.run("document.dispatchEvent(new KeyboardEvent('keydown', {key: 'Escape', bubbles: true}))")
    browser.wait("document.getElementById('detail').hidden")
    assert browser.run("document.activeElement.dataset.ticket") == POTENTIAL
    assert browser.complaints() == []


def test_the_crosshair_tells_values_by_arrow_key_and_a_drag_looks_closer(browser, site):
    browser.size(1440, 900)
    log_in(browser, site, "anna", "/board?range=24h")
    browser.run("document.querySelector('.plot').focus()")
    for _ in range(5):
        browser.page("Input.dispatchKeyEvent", type="keyDown", key="ArrowLeft")
    browser.wait("!document.querySelector('.tip').hidden")
    assert "mm/s" in browser.run("document.querySelector('.tip').textContent")
    box = browser.run("document.querySelector('.plot').getBoundingClientRect().toJSON()")
    y = box["top"] + 60
    for kind, x in (
        ("mousePressed", box["left"] + 200),
        ("mouseMoved", box["left"] + 300),
        ("mouseReleased", box["left"] + 400),
    ):
        browser.page("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    browser.wait("location.search.includes('zoom=') && !document.getElementById('unzoom').hidden")
    assert browser.complaints() == []


def test_the_language_switch_and_the_filter_need_no_reload(browser, site):
    browser.size(1440, 900)
    log_in(browser, site, "anna")
    browser.run("window.same = true; document.getElementById('language').click()")
    browser.wait("document.body.innerText.includes('未关闭工单') && document.documentElement.lang === 'zh'")
    browser.wait("document.querySelector('.headline').textContent.includes('预期')")
    browser.run(
        "(() => { const f = document.getElementById('filter'); f.value = '减速机'; f.dispatchEvent(new Event('input')); })()"
    )
    browser.wait("document.querySelectorAll('[data-machine]').length === 1")
    assert browser.run("window.same") is True


def test_new_data_arrive_without_a_reload(browser, site, plain_database):
    browser.size(1440, 900)
    log_in(browser, site, "anna")
    before = browser.run("document.querySelectorAll('[data-ticket]').length")
    with psycopg.connect(plain_database.url, autocommit=True) as conn:
        conn.execute(
            """INSERT INTO ticket (tenant_id, number, type, channel, equipment_number, machine_id, fault_description, contact_phone, region,
                   occurred_at, created_at, updated_at, severity)
               SELECT tenant_id, 'WO-NEW', 'repair', 'phone', number, id, 'It smells', '1', 'r', now(), now(), now(), 'high'
               FROM machine WHERE number = 'S-220'"""
        )
    browser.wait(f"document.querySelectorAll('[data-ticket]').length === {before + 1}")
    browser.wait("document.querySelector('[data-machine].is-high b')")
    assert "S-220" in browser.run(
        "[...document.querySelectorAll('[data-machine].is-high b')].map((b) => b.textContent).join()"
    )


def test_a_wrong_password_is_told_and_no_session_is_left(browser, site):
    browser.size(390, 844)
    browser.open(f"{site}/board?machine=2")
    browser.wait("document.querySelector('#login button')?.textContent")
    browser.run(
        "(() => { const f = document.getElementById('login'); f.login.value = 'anna'; f.password.value = 'no'; f.requestSubmit(); })()"
    )
    browser.wait("document.getElementById('problem').textContent.includes('wrong')")
    assert "/login?next=" in browser.run("location.pathname + location.search")


@pytest.mark.parametrize("wanted", ["%2F%09%2Fevil.invalid%2Fx", "%2F%0A%5Cevil.invalid", "%2F%2Fevil.invalid"])
def test_a_login_leads_to_no_other_site(browser, site, wanted):
    browser.size(390, 844)
    log_in(browser, site, "anna", f"/login?next={wanted}")
    assert browser.run("location.href").startswith(f"{site}/board")


def test_an_engineer_hands_in_a_result_on_the_phone(browser, site):
    browser.size(390, 844, mobile=True)
    log_in(browser, site, "lena", "/board?ticket=WO-20261122-0005")
    browser.wait("document.querySelector('[data-action=hand_in]')")
    browser.run("document.querySelector('[data-action=hand_in]').click()")
    browser.wait("document.querySelector('.actions form')")
    browser.run("document.querySelector('.actions form').requestSubmit()")
    assert browser.run("document.querySelector('.actions form').result.validity.valueMissing")
    browser.run(
        """(() => { const form = document.querySelector('.actions form'); form.result.value = 'Fan cleaned';
        form.hours.value = '1.5'; form.requestSubmit(); })()"""
    )
    browser.wait("document.querySelector('#detail .pill').textContent === 'Pending acceptance'")
    assert browser.run("document.querySelector('.actions')") is None
    assert browser.complaints() == []


def test_a_customer_files_a_ticket_and_is_told_what_is_missing(browser, site):
    browser.size(1440, 900)
    log_in(browser, site, "hengda")
    browser.run("document.getElementById('file').click()")
    browser.wait("document.querySelector('.filing form')")
    assert browser.run("document.querySelector('.filing form').equipment_number.value") == "P-101"
    assert browser.run("document.querySelector('.filing form').region.value") == "East China"
    browser.run("document.querySelector('.filing form').requestSubmit()")
    browser.wait("document.getElementById('remedy-fault_description').textContent.includes('缺少故障现象描述')")
    browser.wait("document.getElementById('remedy-contact_phone').textContent.includes('缺少联系电话')")
    assert browser.run("document.activeElement.name") == "fault_description"
    browser.run(
        """(() => { const form = document.querySelector('.filing form'); form.fault_description.value = '轴承处有异响';
        form.contact_phone.value = '+86 138 0013 8000'; form.requestSubmit(); })()"""
    )
    browser.wait(
        "document.querySelector('#detail .number') && document.getElementById('detail').innerText.includes('轴承处有异响')"
    )
    assert browser.run("document.querySelector('#detail .pill').textContent") == "已提交"
    browser.wait("document.querySelectorAll('[data-ticket]').length === 3")
    assert [line for line in browser.complaints() if "422" not in line] == []
