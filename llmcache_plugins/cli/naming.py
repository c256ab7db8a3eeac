"""How people name one entry: by its key, its digest, the first digits of one, or the key it has in Redis.

Owns the spellings. Which entry is meant by a few digits is looked up in the namespace that the verb has.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmcache_plugins.cli.support import CannotRun
from llmcache_plugins.keys import CacheKey, encode_name, read_redis_key
from llmcache_plugins.repository.listing import LEAST_DIGITS, Listed

if TYPE_CHECKING:
    from llmcache_plugins.repository import ResponseRepository

__all__ = ["HOW", "Named", "read_name", "resolve"]

HOW = f"llm:resp:DIGEST, a digest, its first {LEAST_DIGITS} digits or more, or the key as it is in Redis."
_NAME = re.compile(r"(?:(?P<prefix>.+):resp:)?(?P<digits>[0-9a-f]{1,64})", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """What a name says: the digits, and the namespace as Redis keys spell it, if it says that."""

    digits: str
    namespace: str | None = None


def read_name(text: str, *, prefix: str) -> Named:
    """Read the name of an entry. Raises `CannotRun` for what is none, or is one of another prefix."""
    if (redis_key := read_redis_key(text)) is not None:
        its_prefix, namespace, digits = redis_key
        is_ours = its_prefix == encode_name(prefix)
        named = Named(digits=digits, namespace=namespace)
    elif (found := _NAME.fullmatch(text)) is not None:
        is_ours = found["prefix"] in (None, prefix)
        named = Named(digits=found["digits"].lower())
    else:
        raise CannotRun(f"that is no key; a key is {HOW}")
    if not is_ours:
        raise CannotRun(f"that key begins with another prefix than {prefix!r}; say which with --prefix")
    if not LEAST_DIGITS <= len(named.digits) <= 64:
        raise CannotRun(f"a key has 64 digits; say at least {LEAST_DIGITS} of them, the first ones")
    return named


async def resolve(repository: ResponseRepository, named: Named) -> CacheKey | None:
    """Return the key that is meant, in the repository's namespace; None if no valid entry begins so.

    A whole digest need not be stored. Raises `CannotRun` for digits that several begin with.
    """
    namespace, prefix = repository.config.namespace, repository.config.prefix
    digests = await repository.listing.find(namespace, named.digits)
    keys = [CacheKey(digest=digest, namespace=namespace, prefix=prefix) for digest in digests]
    if len(named.digits) == 64:
        return keys[0]
    # What has expired is on the books until it is met.
    valid = [key for key in keys if isinstance(await repository.listing.look_at(key), Listed)]
    if len(valid) > 1:
        raise CannotRun(f"several keys begin with {named.digits}: {', '.join(map(str, valid))}")
    return valid[0] if valid else None
