"""A connection that rests between reads reads on afterwards, unless it was told to pause meanwhile."""

import asyncio

from ingest.packets import Connect, Version
from ingest.session import Link


class Transport(asyncio.Transport):
    """Remembers whether it reads."""

    def __init__(self):
        super().__init__()
        self.reads = True
        self.closing = False

    def pause_reading(self):
        self.reads = False

    def resume_reading(self):
        self.reads = True

    def write(self, data):
        pass

    def is_closing(self):
        return self.closing

    def abort(self):
        self.closing = True


async def _link():
    link, transport = Link(Version.V5, Connect(client_id="x"), lambda *_: None), Transport()
    link.connection_made(transport)
    return link, transport


async def test_it_reads_again_after_a_rest():
    link, transport = await _link()
    link.rest(0)
    assert not transport.reads
    link.rest(60)  # one at a time
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert transport.reads


async def test_a_pause_outlasts_a_rest():
    link, transport = await _link()
    link.rest(0)
    link.pause()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not transport.reads
    link.rest(0)  # nothing to rest from
    link.resume()
    assert transport.reads


async def test_a_connection_that_ends_while_it_rests_is_left_in_peace():
    link, transport = await _link()
    link.rest(0)
    link.abort()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not transport.reads
    assert link.lost.done()
    link.rest(0)
