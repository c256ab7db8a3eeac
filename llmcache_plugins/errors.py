"""Every error this package raises on its own behalf.

    LLMCacheError
    |-- ConfigError                 a setting, a URL or an argument that cannot work
    |-- SignatureError              a request without a canonical form; names the path
    |-- UnstorableAnswer            an answer no codec can give back unchanged
    |-- CorruptEntry                stored bytes that are not an entry of ours
    |-- CacheMiss                   mode="read_only" found no answer
    |-- CassetteError               a file of recorded answers that cannot be read or written
    |-- WaitTimeout                 no answer within wait_timeout, and on_wait_timeout="raise"
    |-- SharedProviderError         the provider's error to the same request of another caller
    |-- StreamInterrupted           a shared stream ended without its end
    |-- SeedingStopped              warming cannot go on; has a report of what was done
    |-- EmbeddingFailed             an embedder gave no vector that could be used
    `-- RepositoryError             the server could not do what was asked
        |-- RepositoryUnavailable   refused, hung, overloaded, or known to be away
        |-- EmbeddedServerError     the embedded server could not be started
        `-- InvalidationIncomplete  not every bucket has acknowledged an invalidation

None of them ever replaces an answer that the provider gave: `InferenceGateway` and `ResponseCache` call the
provider when the cache cannot help. An error of the provider passes through them unchanged in the process
that called it; others get a `SharedProviderError`, or what their provider makes of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
        self.reason = reason
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), {"path": self.path}, self.reason)


class UnstorableAnswer(LLMCacheError):
    """No codec can store this answer and give it back unchanged."""


class CorruptEntry(LLMCacheError):
    """Stored bytes are not an entry that this version can read."""


class CacheMiss(LLMCacheError, LookupError):
    """`mode="read_only"` found no answer, and nobody who is fetching one."""


class CassetteError(LLMCacheError):
    """A file of recorded answers cannot be read or written; the message names it and says what to do."""


class WaitTimeout(LLMCacheError, TimeoutError):
    """Whoever fetches the answer did not have it within `wait_timeout`."""


class SharedProviderError(LLMCacheError):
    """The provider has just refused the same request of another caller.

    Of one in another process, whom this one waited for; or of whoever asked before, with a rate limit.
    `status` is its HTTP status, `retry_after` (seconds) how much longer it asks to be left alone,
    `error_class` the name of the exception there; nothing of what the provider said is passed on.
    """

    def __init__(
        self, *, status: int | None = None, retry_after: float | None = None, error_class: str = ""
    ) -> None:
        what = f"status {status}" if status is not None else error_class or "an error"
        wait = f"; retry after {retry_after:.1f} s" if retry_after else ""
        super().__init__(
            f"the provider has just answered the same request of another caller with {what}{wait}"
        )
        self.status = status
        self.status_code = status
        self.retry_after = retry_after
        self.error_class = error_class

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (
            type(self),
            {"status": self.status, "retry_after": self.retry_after, "error_class": self.error_class},
        )


class StreamInterrupted(LLMCacheError):
    """A stream that another process fetches ended without its end; what came is not the whole answer.

    Nothing is stored. Ask again: the chunks already given out are not repeated from the middle.
    """


class SeedingStopped(LLMCacheError):
    """Warming ended before its queries did, for every further call would fail or be paid for in vain.

    `report` is the `SeedReport` of what was done until then. Running it again pays for none of that.
    """

    def __init__(self, reason: str, *, report: Any) -> None:
        super().__init__(reason)
        self.report = report

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), {"report": self.report}, str(self))


class EmbeddingFailed(LLMCacheError):
    """An embedder gave no vector that can be used: it raised, took too long, or gave something else.

    Costs a semantic hit, never an answer. The message never quotes the text; what the embedder raised is the
    cause.
    """


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

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), {"done": self.done, "missing": self.missing})


def _rebuilt(kind: type[LLMCacheError], named: dict[str, Any], *args: Any) -> LLMCacheError:
    """Build an error that has travelled between processes."""
    return kind(*args, **named)
