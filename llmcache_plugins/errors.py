"""Every error this package raises on its own behalf.

    LLMCacheError
    |-- ConfigError                 a setting, a URL or an argument that cannot work
    |-- SignatureError              a request without a canonical form; names the path
    |-- UnstorableAnswer            an answer no codec can give back unchanged
    |-- CorruptEntry                stored bytes that are not an entry of ours
    `-- RepositoryError             the server could not do what was asked
        |-- RepositoryUnavailable   refused, hung, overloaded, or known to be away
        |-- EmbeddedServerError     the embedded server could not be started
        `-- InvalidationIncomplete  not every bucket has acknowledged an invalidation

None of them ever replaces the answer of a provider: `InferenceGateway` and `ResponseCache` call the
provider when the cache cannot help. An error of the provider passes through them unchanged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection


class LLMCacheError(Exception):
    """Base of all errors of this package."""


class ConfigError(LLMCacheError, ValueError):
    """A setting, a URL or an argument cannot work; the message says what to change."""


class SignatureError(LLMCacheError, ValueError):
    """A request has no canonical form, so it has no cache key.

    `path` names the place in the request, such as `messages[2].content[0].image`.
    """

    def __init__(self, reason: str, *, path: str) -> None:
        super().__init__(f"{path or 'the request'}: {reason}")
        self.path = path


class UnstorableAnswer(LLMCacheError):
    """No codec can store this answer and give it back unchanged."""


class CorruptEntry(LLMCacheError):
    """Stored bytes are not an entry that this version can read."""


class RepositoryError(LLMCacheError):
    """The repository could not do what was asked."""


class RepositoryUnavailable(RepositoryError):
    """The server did not answer in time, refused, or is known to be away."""


class EmbeddedServerError(RepositoryError):
    """The embedded server could not be started; the message names its log."""


class InvalidationIncomplete(RepositoryError):
    """Some buckets have not acknowledged an invalidation; repeating it is safe.

    `done` and `missing` are bucket numbers.
    """

    def __init__(self, *, done: Collection[int], missing: Collection[int]) -> None:
        super().__init__(
            f"{len(missing)} of {len(missing) + len(done)} buckets did not acknowledge the invalidation;"
            " answers there may still be served. Repeat the call: it is safe."
        )
        self.done = frozenset(done)
        self.missing = frozenset(missing)
