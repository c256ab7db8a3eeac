"""`rediss://`: through a proxy that ends TLS, since the servers in the wheels have none."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from llmcache_plugins import InferenceGateway, Outcome, RepositoryUnavailable, ResponseCache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from servers import Server


@pytest.fixture
async def tls_url(valkey: Server, tmp_path: Path) -> AsyncIterator[str]:
    """The URL of the server behind TLS; `ca.pem` in `tmp_path` vouches for it."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.add(asyncio.current_task())  # type: ignore[arg-type]
        upstream = await asyncio.open_unix_connection(valkey.url.removeprefix("unix://"))
        with contextlib.suppress(OSError, ssl.SSLError):
            await asyncio.gather(_pump(reader, upstream[1]), _pump(upstream[0], writer))

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield f"rediss://localhost:{server.sockets[0].getsockname()[1]}"
    server.close()
    for connection in connections:
        connection.cancel()
    await asyncio.gather(*connections, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


async def provider(_query: object) -> str:
    return "answer"


async def test_it_works_with_a_certificate_that_is_known(tls_url: str, tmp_path: Path, namespace: str):
    url = f"{tls_url}?ssl_ca_certs={tmp_path / 'ca.pem'}"
    cache = ResponseCache.from_url(url, namespace=namespace, lookup_budget=5.0, socket_timeout=5.0)
    async with InferenceGateway(provider, cache) as gateway:
        outcomes = [(await gateway.resolve_detailed("x")).outcome for _ in range(2)]
    assert outcomes == [Outcome.MISS, Outcome.HIT]


async def test_a_stranger_s_certificate_is_an_outage_and_no_error_of_the_caller_s(
    tls_url: str, namespace: str
):
    cache = ResponseCache.from_url(tls_url, namespace=namespace, lookup_budget=5.0, socket_timeout=5.0)
    async with InferenceGateway(provider, cache) as gateway:
        result = await gateway.resolve_detailed("x")
        assert (result.answer, result.outcome) == ("answer", Outcome.UNAVAILABLE)
        with pytest.raises(RepositoryUnavailable, match="certificate"):
            await cache.repository.ping()
