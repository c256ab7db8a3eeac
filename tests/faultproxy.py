"""A proxy between client and server that breaks what passes through it.

Owns the faults of a network: slowness, silence, resets, refused connections and replies that get lost. Must
not know the package under test, nor the protocol: it sees bytes. Not for a Cluster, whose nodes tell their
clients addresses that lead past the proxy.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

CHUNK = 1 << 16
# SO_LINGER with zero seconds: close() sends RST instead of FIN.
RESET = struct.pack("ii", 1, 0)


class FaultProxy:
    """`async with FaultProxy(server.url) as proxy:` then give `proxy.url` to the client.

    Every fault can be switched while connections are open, and holds for those too:

        proxy.delay = 0.2             seconds each way
        proxy.mode = "black_hole"     connections are accepted and stay open, bytes vanish
        proxy.mode = "reset"          whoever sends something gets a reset
        proxy.drop_reply(b"EVALSHA")  the request arrives, its reply vanishes, and all later ones there
        await proxy.refuse()          nobody listens, open connections are reset
        await proxy.restore()         no faults

    (`b"SET"` matches the CLIENT SETINFO of the handshake too: take the key, or `b"$3\\r\\nSET"`.)
    `requests` and `dropped` count chunks that were sent on and connections whose replies were dropped.
    """

    def __init__(self, target: str) -> None:
        self._target = urlsplit(target)
        self._server: asyncio.Server | None = None
        self._port = 0
        self._pairs: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._forget_faults()
        self.requests = 0
        self.dropped = 0

    def _forget_faults(self) -> None:
        self.delay = 0.0
        self.mode: Literal["pass", "black_hole", "reset"] = "pass"
        self._is_dropped: Callable[[bytes], bool] = lambda _: False

    @property
    def url(self) -> str:
        credentials = f":{self._target.password}@" if self._target.password else ""
        return f"redis://{credentials}127.0.0.1:{self._port}"

    def drop_reply(self, matches: bytes | Callable[[bytes], bool]) -> None:
        """Lose the replies to requests that contain these bytes, or for which this function is true."""
        self._is_dropped = (lambda request: matches in request) if isinstance(matches, bytes) else matches

    async def refuse(self) -> None:
        """Close the port, and reset the connections that are open."""
        if self._server is not None:
            self._server.close()
        for task, client in self._pairs.items():
            _reset(client)
            task.cancel()
        await asyncio.gather(*self._pairs, return_exceptions=True)
        if self._server is not None:
            # Last: since Python 3.12 this waits for the open connections too.
            await self._server.wait_closed()
            self._server = None

    async def restore(self) -> None:
        """Work again, on the same address."""
        self._forget_faults()
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self._port)
            self._port = self._server.sockets[0].getsockname()[1]

    async def __aenter__(self) -> Self:
        await self.restore()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of the proxy's own: asyncio forgets those it makes for coroutine callbacks.
        task = asyncio.create_task(self._serve(reader, writer))
        self._pairs[task] = writer
        task.add_done_callback(self._pairs.pop)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            upstream_reader, upstream = await self._connect()
            lost = asyncio.Event()
            with contextlib.closing(upstream):
                ways = (
                    asyncio.create_task(self._requests(reader, upstream, client=writer, lost=lost)),
                    asyncio.create_task(self._replies(upstream_reader, writer, lost=lost)),
                )
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._target.scheme == "unix":
            return await asyncio.open_unix_connection(self._target.path)
        return await asyncio.open_connection(self._target.hostname, self._target.port)

    async def _requests(
        self,
        reader: asyncio.StreamReader,
        upstream: asyncio.StreamWriter,
        *,
        client: asyncio.StreamWriter,
        lost: asyncio.Event,
    ) -> None:
        while chunk := await reader.read(CHUNK):
            await asyncio.sleep(self.delay)
            if self.mode == "reset":
                _reset(client)
                return
            if self.mode == "black_hole":
                continue
            if self._is_dropped(chunk) and not lost.is_set():
                lost.set()
                self.dropped += 1
            self.requests += 1
            upstream.write(chunk)
            await upstream.drain()

    async def _replies(
        self, reader: asyncio.StreamReader, client: asyncio.StreamWriter, *, lost: asyncio.Event
    ) -> None:
        while chunk := await reader.read(CHUNK):
            await asyncio.sleep(self.delay)
            if self.mode == "pass" and not lost.is_set():
                client.write(chunk)
                await client.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    sock = writer.get_extra_info("socket")
    if sock is not None and sock.fileno() >= 0:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()
