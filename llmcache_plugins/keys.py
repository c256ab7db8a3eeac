"""What an entry is called: to people (`CacheKey`) and to Redis (`KeyLayout`).

Owns the spelling of every Redis key. Knows nothing of connections or scripts.

    <prefix>:{<namespace>.<bucket>}:<what>[:<digest>]

The braces are a Redis Cluster hash tag: everything of one bucket lies in one slot, so that every
script is atomic and single-slot. The bucket is the first 16 bits of the digest modulo the number of
buckets, which follows from the kind of server (1 on a server, 64 in a Cluster) and is no option: two
processes with different numbers would not see each other's invalidations.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from functools import lru_cache
from urllib.parse import quote, unquote

import msgspec

from llmcache_plugins.errors import ConfigError

__all__ = [
    "BUCKETS_IN_CLUSTER",
    "BUCKETS_ON_SERVER",
    "BucketKeys",
    "CacheKey",
    "KeyLayout",
    "books_matcher",
    "books_pattern",
    "decode_name",
    "embedder_id",
    "encode_name",
    "read_redis_key",
    "require_digest",
    "tenant_namespace",
]

BUCKETS_ON_SERVER = 1
BUCKETS_IN_CLUSTER = 64

_LONGEST_NAME = 64
_OF_BUCKET = frozenset({"marks", "epoch", "log", "size", "vectors"})
_OF_REQUEST = {
    "entry": "resp",
    "lease": "lease",
    "record": "error",
    "chunks": "chunks",
    "vector": "vec",
    "wake": "wake",
}
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SPELLED = r"[A-Za-z0-9_.%-]+"
_BUCKET = r"0|[1-9][0-9]?"
_ENTRY = re.compile(
    rf"(?P<prefix>{_SPELLED}):\{{(?P<namespace>{_SPELLED})\.(?:{_BUCKET})\}}:resp:(?P<digest>[0-9a-f]+)"
)


@lru_cache(maxsize=4096)
def encode_name(name: str) -> str:
    """Spell a prefix or namespace so that no name can reach outside its own keys.

    Percent-encoded to `[A-Za-z0-9_.%-]`; a name that comes out longer than 64 characters is replaced by
    its SHA-256. Two different names never get one spelling.
    """
    if not isinstance(name, str):
        raise ConfigError(f"a namespace or prefix is a string, not {type(name).__name__}")
    # quote() leaves "~" alone; the key alphabet does not have it. No encoded name begins with "%-", which
    # is not an escape, so none can pass for the digest of another.
    encoded = quote(name, safe="", encoding="utf-8", errors="surrogatepass").replace("~", "%7E")
    if len(encoded) <= _LONGEST_NAME:
        return encoded
    return "%-" + hashlib.sha256(encoded.encode()).hexdigest()


def decode_name(spelled: str) -> str | None:
    """Return the name that `encode_name` spells so; None if it does not tell, or never spells any so."""
    try:
        name = unquote(spelled, encoding="utf-8", errors="surrogatepass")
    except UnicodeDecodeError:
        return None
    return name if name and encode_name(name) == spelled else None


def books_pattern(prefix: str) -> str:
    """Return a SCAN pattern that covers the books of all namespaces, and hardly anything else."""
    return f"{encode_name(prefix)}:{{*}}:[ls][oi][gz]*"


def books_matcher(prefix: str) -> re.Pattern[str]:
    """Return the exact form of the keys of books, for `fullmatch`: groups `root`, `namespace`, `bucket`."""
    head = rf"{re.escape(encode_name(prefix))}:\{{(?P<namespace>{_SPELLED})\.(?P<bucket>{_BUCKET})\}}:"
    return re.compile(rf"(?P<root>{head})(?:log|size)")


def read_redis_key(key: str) -> tuple[str, str, str] | None:
    """Return prefix and namespace, as they are spelled there, and the digest of an entry's Redis key.

    The digest may be cut off. None for what is no such key.
    """
    found = _ENTRY.fullmatch(key)
    return None if found is None else (found["prefix"], found["namespace"], found["digest"])


def tenant_namespace(namespace: str, *tenant: str | None, secret: bytes | None = None) -> str:
    """Return the namespace of a tenant of `namespace`.

    A digest: who they are has no place in the names of keys. With a deployment's `secret`, nobody without it
    can tell whose a namespace is.
    """
    text = json.dumps(tenant, separators=(",", ":")).encode()
    return f"{namespace}.{hmac.digest(secret or b'llmcache', text, 'sha256').hex()[:32]}"


def require_digest(what: str, value: object) -> str:
    """Return a value that is 64 lowercase hexadecimal digits; raise `ConfigError` for any other.

    What is a part of a query to the server is nothing else: there is nothing to escape in it.
    """
    if isinstance(value, str) and _DIGEST.fullmatch(value):
        return value
    raise ConfigError(f"{what} must be a digest of 64 lowercase hexadecimal digits")


def embedder_id(name: str, *, dim: int) -> str:
    """Return the 12 hexadecimal digits that stand for an embedder in the names of its vectors and indexes.

    Another model, version or dimension has another: vectors of two embedders are never compared.
    """
    return hashlib.sha256(f"{name}\n{dim}".encode("utf-8", "surrogatepass")).hexdigest()[:12]


@lru_cache(maxsize=4096)
def _root(prefix: str, namespace: str, bucket: int) -> str:
    return f"{encode_name(prefix)}:{{{encode_name(namespace)}.{bucket}}}:"


class CacheKey(msgspec.Struct, frozen=True, kw_only=True):
    """The identity of one request: equal requests have equal keys.

    `digest` is 64 hexadecimal digits, `namespace` the trust domain it is valid in. `str(key)` is for
    people and logs of tools; `redis_key` is where the entry lies.
    """

    digest: str
    namespace: str = "default"
    prefix: str = "llm"
    model: str | None = None
    """The model that is asked, if the request says so: an invalidation may name it."""

    def redis_key(self, *, buckets: int = BUCKETS_ON_SERVER) -> str:
        """Return the Redis key of the entry; `buckets` is 64 in a Cluster, 1 elsewhere."""
        layout = KeyLayout(prefix=self.prefix, namespace=self.namespace, buckets=buckets)
        return layout.request(self.digest)["entry"]

    def __str__(self) -> str:
        # Spelled as in Redis: it goes into lines of logs and into headers, whatever the prefix.
        return f"{encode_name(self.prefix)}:resp:{self.digest}"


class BucketKeys(msgspec.Struct, frozen=True):
    """The keys of one bucket, by what they are: `keys["marks"]`; those of one request need its digest."""

    root: str
    digest: str = ""

    def __getitem__(self, what: str) -> str:
        if what in _OF_BUCKET:
            return self.root + what
        if not self.digest:
            raise KeyError(what)
        return f"{self.root}{_OF_REQUEST[what]}:{self.digest}"


class KeyLayout(msgspec.Struct, frozen=True, kw_only=True):
    """All Redis keys of one namespace."""

    prefix: str
    namespace: str
    buckets: int

    def bucket_of(self, digest: str) -> int:
        """Return the bucket of a digest."""
        return int(digest[:4], 16) % self.buckets

    def bucket(self, number: int) -> BucketKeys:
        """Return the keys of a bucket."""
        return BucketKeys(_root(self.prefix, self.namespace, number))

    def request(self, digest: str) -> BucketKeys:
        """Return the keys of a request and its bucket."""
        return BucketKeys(_root(self.prefix, self.namespace, self.bucket_of(digest)), digest)

    def index(self, embedder: str) -> str:
        """Return the name of the server's index over an embedder's vectors. There is none in a Cluster."""
        return f"{_root(self.prefix, self.namespace, 0)}index:{embedder}"

    def pattern(self) -> str:
        """Return a SCAN pattern that covers the namespace; `matcher` says what is truly its own."""
        return f"{encode_name(self.prefix)}:{{{encode_name(self.namespace)}.*}}:*"

    def matcher(self) -> re.Pattern[str]:
        """Return the exact form of the keys of requests, for `fullmatch`: groups `bucket` and `name`.

        The name is what follows the root. A namespace may contain dots: `a` must not match the keys of `a.0`.
        """
        head = re.escape(f"{encode_name(self.prefix)}:{{{encode_name(self.namespace)}.")
        name = r"(?:resp|lease|error|vec):[0-9a-f]{64}|chunks:[0-9a-f]{64}:\d{16}"
        return re.compile(rf"{head}(?P<bucket>\d+)\}}:(?P<name>{name})")
