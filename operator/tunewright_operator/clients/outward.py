"""Connections to where a user's URL leads, but never to the operator's own machine: who may write an object need not be
allowed to ask what listens there, or the metadata service of a cloud. A name tells nothing; the address does."""

import socket
from contextlib import suppress
from ipaddress import IPv6Address, ip_address

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from yarl import URL


class InwardError(Exception):
    """The URL leads to the operator's own machine."""


def is_inward(address: str) -> bool:
    """Whether this address, IPv4 or IPv6, is loopback, link-local or unspecified."""
    found = ip_address(address.partition("%")[0])
    inner = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return any(one.is_loopback or one.is_link_local or one.is_unspecified for one in (found, inner) if one)


def connect_outward(url: URL) -> aiohttp.TCPConnector:
    """A connector for this URL alone. Raises InwardError now where its host is an address, else when it is resolved."""
    host = url.host or ""
    with suppress(OSError):
        host = socket.inet_ntoa(socket.inet_aton(host))  # 0x7f000001, 2130706433 and 127.1 are addresses, too
    with suppress(ValueError):
        _refuse(host)
    return aiohttp.TCPConnector(resolver=_OutwardResolver())


class _OutwardResolver(AbstractResolver):
    """aiohttp asks it for every name, each time it connects."""

    def __init__(self) -> None:
        self._inner = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for one in found:
            _refuse(one["host"])
        return found

    async def close(self) -> None:
        await self._inner.close()


def _refuse(address: str) -> None:
    if is_inward(address):
        raise InwardError(address)
