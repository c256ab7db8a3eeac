"""The keys of logged calls: those the product gives them, as they are and with normalizers.

Owns which of several chains of rules a request is signed with, and that this costs no more than it must.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from llmcache_plugins.estimate.books import DIGEST_BYTES
from llmcache_plugins.normalize import Normalizers
from llmcache_plugins.signature import CacheSignatureEngine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from llmcache_plugins.estimate.calls import LoggedCall

__all__ = ["Signed", "Signer"]


_NO_RULES = Normalizers(())


class Signed(NamedTuple):
    """The digests of one call, and what was stripped for them."""

    exact: bytes
    normalized: bytes
    without: tuple[bytes, ...]
    """With all rules but one: for each of them, in their order; empty for a single rule."""
    stripped: Mapping[str, int]
    """Tokens by rule, of the rules that have found any."""


class Signer:
    """Signs calls, for one chain of built-in rules. `api_base` is the provider's address, if it counts."""

    def __init__(self, rules: Sequence[str], *, api_base: str | None = None) -> None:
        self.rules = tuple(rules)
        self._engine = CacheSignatureEngine()
        self.scope: dict[str, object] = {} if api_base is None else {"api_base": api_base}
        self.chain = Normalizers(self.rules)
        self._without = [
            (rule, Normalizers([one for one in self.rules if one != rule]))
            for rule in self.rules
            if len(self.rules) > 1
        ]

    def sign(self, call: LoggedCall) -> Signed:
        """Return the digests of a call. Raises `SignatureError` for a request without a canonical form."""
        stripped: dict[str, int] = {}
        if not self.rules:
            exact = self._key(call, _NO_RULES)
            return Signed(exact, exact, (), stripped)
        whole = self._engine.anatomy(call.request, kind=call.kind, scope=self.scope, normalizers=self.chain)
        normalized = hashlib.sha256(whole.canonical).digest()[:DIGEST_BYTES]
        for one in whole.normalized:
            stripped[one.rule] = stripped.get(one.rule, 0) + one.count
        if not stripped:
            # With no token found the key is the one that it has without rules.
            return Signed(normalized, normalized, (normalized,) * len(self._without), stripped)
        exact = self._key(call, _NO_RULES)
        without = []
        for rule, others in self._without:
            # Only who has such a token is another request without its rule.
            if rule not in stripped:
                without.append(normalized)
            else:
                without.append(exact if len(stripped) == 1 else self._key(call, others))
        return Signed(exact, normalized, tuple(without), stripped)

    def _key(self, call: LoggedCall, rules: Normalizers) -> bytes:
        key = self._engine.compute_signature(
            call.request, kind=call.kind, scope=self.scope, normalizers=rules
        )
        return bytes.fromhex(key.digest[: 2 * DIGEST_BYTES])
