"""What makes two requests equal: the canonical form of a request, and its digest.

Owns what is digested, and the scheme version; how a request is taken apart is in `request`, the canonical
form of values in `canonical`, what cannot change an answer in `left_out`, what normalizers do in
`normalized`. Knows nothing of frameworks or of Redis: what comes in is a body (or a bare prompt) as it will
be sent, what goes out is a `CacheKey`.

    digest = SHA-256 or HMAC-SHA-256 of the canonical JSON of
             [scheme, kind, namespace | [namespace, {version: value}], prompt | null, {parameter: value}]
             and, if normalizers have put placeholders into it, their names

Prompts are chosen by strangers, so the digest is a cryptographic one and the form is one JSON document:
no two different requests have the same bytes, wherever a character is moved. Whoever changes what
this module calls equal raises `SCHEME` in the same commit; entries of the old scheme are then never found.

Two mistakes are possible here and they are not alike. A parameter in the key that changes nothing costs a
provider call; one left out that changes something serves a wrong answer. So what is left out is a closed
list, and everything unknown stays in.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import msgspec

from llmcache_plugins.errors import ConfigError, SignatureError
from llmcache_plugins.keys import CacheKey, encode_name
from llmcache_plugins.normalize import Normalizers
from llmcache_plugins.signature.canonical import Refused, Tree, path_of
from llmcache_plugins.signature.leaves import Leaves
from llmcache_plugins.signature.normalized import Normalized, normalize, texts_of
from llmcache_plugins.signature.request import names_left_out, parameter, parts_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from llmcache_plugins.normalize import Normalizer
    from llmcache_plugins.signature.normalized import Text

__all__ = ["SCHEME", "Anatomy", "CacheSignatureEngine", "Unsigned"]

SCHEME: Final = 1
"""Version of the canonical form, part of every digest."""

_OF_THIS_PROCESS = secrets.token_bytes(32)
Version: TypeAlias = str | int

_PARAMETERS: Final = 4
"""Their place in what is digested."""
# Characters that all built-in rules together go through in a millisecond, even if they are full of tokens.
_MUCH = 8 * 1024


class CacheSignatureEngine:
    """Gives equal requests equal keys.

    With a `secret` the digest is an HMAC: who can read the key names of the server cannot test whether a
    guessed prompt was asked. All processes that share entries need the same secret. `namespace` is the trust
    domain; it is part of the digest as well, so that not even the digests of two tenants can be compared.

    `normalizers` strip from the texts of a request what changes from call to call: names of built-in rules,
    compiled expressions and functions, in their order, or a `Normalizers`. They change the key alone; a
    request in which they find nothing has the key that it has without them. `versions`, such as
    `{"prompt_version": 3}`, count in every request.

    The engine has no state: one may be used by any number of tasks and threads. It does no I/O and never
    changes a request. Raises `ConfigError` for settings that cannot work.
    """

    __slots__ = ("_leaves_key", "_namespace", "_normalizers", "_prefix", "_secret", "_versions")

    def __init__(
        self,
        *,
        secret: str | bytes | None = None,
        namespace: str = "default",
        prefix: str = "llm",
        normalizers: Normalizers | Iterable[Normalizer] = (),
        versions: Mapping[str, Version] | None = None,
    ) -> None:
        self._secret = _secret_bytes(secret)
        self._versions = dict(versions or {})
        self._leaves_key = hashlib.blake2b(
            self._secret or _OF_THIS_PROCESS, person=b"llmcache leaves"
        ).digest()
        self._namespace = namespace
        self._prefix = prefix
        rules = normalizers if isinstance(normalizers, Normalizers) else Normalizers(normalizers)
        self._normalizers = rules or None

    def compute_signature(
        self,
        request: Mapping[str, Any] | str,
        *,
        kind: str = "plain",
        scope: Mapping[str, object] | None = None,
        namespace: str | None = None,
        normalizers: Normalizers | None = None,
        versions: Mapping[str, Version] | None = None,
        model: str | None = None,
    ) -> CacheKey:
        """Return the key of a request.

        `kind` says which codec reads the stored value. `scope` holds facts of the provider that change the
        answer, such as `{"api_base": ...}`; they count as parameters of the request, whose own win.
        `normalizers` replace the engine's own, `versions` win over its own: a request of another version is
        another request. `model` is the model that is asked, where the request does not call it that.
        A chat of two kilobytes takes about 30 microseconds, on the calling thread, and so does whatever the
        normalizers do: who has an event loop uses `read`.

        Raises `SignatureError`, and nothing else, for a request without a canonical form.
        """
        read = self.read(
            request,
            kind=kind,
            scope=scope,
            namespace=namespace,
            normalizers=normalizers,
            versions=versions,
            model=model,
        )
        return read if isinstance(read, CacheKey) else read.sign()

    def read(
        self,
        request: Mapping[str, Any] | str,
        *,
        kind: str = "plain",
        scope: Mapping[str, object] | None = None,
        namespace: str | None = None,
        normalizers: Normalizers | None = None,
        versions: Mapping[str, Version] | None = None,
        model: str | None = None,
    ) -> CacheKey | Unsigned:
        """Like `compute_signature`, but leave to a thread what an event loop should not wait for.

        That is what normalizers do to many kilobytes, and all that rules of the application do. What comes
        back then is independent of the request, which may change meanwhile.
        """
        rules = self._normalizers if normalizers is None else normalizers
        document = self._document(request, kind=kind, scope=scope, namespace=namespace, versions=versions)
        if rules is not None:
            texts = texts_of(document, scope or ())
            if _takes_long(texts, rules):
                return Unsigned(self, document, texts=texts, rules=rules, namespace=namespace, model=model)
            _normalize(document, texts, rules)
        return self._key(document, namespace, model)

    def canonical(
        self,
        request: Mapping[str, Any] | str,
        *,
        kind: str = "plain",
        scope: Mapping[str, object] | None = None,
        namespace: str | None = None,
        normalizers: Normalizers | None = None,
        versions: Mapping[str, Version] | None = None,
    ) -> bytes:
        """Return the bytes that are digested: one JSON document in canonical form. It contains the prompt.

        After RFC 8785 (JSON Canonicalization Scheme), which sorts keys and fixes the spelling of numbers.
        Other than there, keys are sorted by code point and not by UTF-16 unit; integers keep all their digits
        and do not become doubles; a float with an integral value is that integer; strings are in Unicode NFC.
        `None` is the same as absent where an SDK makes it so, as a parameter and as a field of a message, and
        nowhere else: the schema `{"const": null}` is not `{}`.

        Raises `SignatureError`, and nothing else, for a request without a canonical form.
        """
        return self.anatomy(
            request, kind=kind, scope=scope, namespace=namespace, normalizers=normalizers, versions=versions
        ).canonical

    def anatomy(
        self,
        request: Mapping[str, Any] | str,
        *,
        kind: str = "plain",
        scope: Mapping[str, object] | None = None,
        namespace: str | None = None,
        normalizers: Normalizers | None = None,
        versions: Mapping[str, Version] | None = None,
    ) -> Anatomy:
        """Return what counts of a request, what does not, and what normalizers have stripped.

        Raises `SignatureError`, and nothing else, for a request without a canonical form.
        """
        rules = self._normalizers if normalizers is None else normalizers
        document = self._document(request, kind=kind, scope=scope, namespace=namespace, versions=versions)
        stripped = () if rules is None else _normalize(document, texts_of(document, scope or ()), rules)
        return Anatomy(canonical=_encoded(document), left_out=names_left_out(request), normalized=stripped)

    def explain_normalization(
        self,
        request: Mapping[str, Any] | str,
        *,
        scope: Mapping[str, object] | None = None,
        normalizers: Normalizers | None = None,
    ) -> tuple[Normalized, ...]:
        """Return which rule has stripped how much, and where; in the order of the request. Never the text.

        Raises `SignatureError`, and nothing else, for a request without a canonical form.
        """
        return self.anatomy(request, scope=scope, normalizers=normalizers).normalized

    def taken_apart(self, request: Mapping[str, Any] | str) -> tuple[bytes, dict[str, str]]:
        """Return a digest of all of a request that is no text, and its texts by their paths.

        For whoever tries normalizers on many requests: two have one key if both halves are equal, the texts
        normalized. Raises `SignatureError`, and nothing else, for a request without a canonical form.
        """
        document = self._document(request, kind="plain", scope=None, namespace=None)
        texts = {path_of(text.path): text for text in texts_of(document)}
        said = {path: text.said for path, text in texts.items()}
        for text in texts.values():
            text.holder[text.step] = None
        return hashlib.sha256(_encoded(document)).digest(), said

    def leaves(
        self,
        request: Mapping[str, Any] | str,
        *,
        scope: Mapping[str, object] | None = None,
        normalizers: Normalizers | None = None,
    ) -> Leaves:
        """Return the fingerprints of the leaves of a request, keyed with the secret.

        They are those of the normalized texts, unless that is not for an event loop. Without a secret the key
        is one of this process: only what it has stored itself can be compared. Raises `SignatureError`, and
        nothing else, for a request without a canonical form.
        """
        rules = self._normalizers if normalizers is None else normalizers
        document = self._document(request, kind="plain", scope=scope, namespace=None)
        if rules is not None and not _takes_long(texts := texts_of(document, scope or ()), rules):
            _normalize(document, texts, rules)
        prompt, parameters = document[_PARAMETERS - 1], document[_PARAMETERS]
        tree = parameters if prompt is None else {**parameters, "prompt": prompt}
        return Leaves(tree, key=self._leaves_key)

    def _document(
        self,
        request: Mapping[str, Any] | str,
        *,
        kind: str,
        scope: Mapping[str, object] | None,
        namespace: str | None,
        versions: Mapping[str, Version] | None = None,
    ) -> list[Any]:
        """Return what is digested, as a tree of its own."""
        spelled: Tree = encode_name(self._namespace if namespace is None else namespace)
        try:
            if self._versions or versions:
                # A list: no request without a version has the bytes of one that has.
                said = {**self._versions, **(versions or {})}
                spelled = [spelled, {name: parameter(name, version) for name, version in said.items()}]
            prompt, parameters = parts_of(request, scope or {})
            return [SCHEME, parameter("kind", kind), spelled, prompt, parameters]
        except Refused as refused:
            raise SignatureError(refused.reason, path=refused.path()) from None
        except RuntimeError as error:
            # The caller's own stack was nearly used up, or another thread changed the request meanwhile.
            raise SignatureError(f"could not be read ({type(error).__name__})", path="") from None

    def _key(self, document: list[Any], namespace: str | None, model: str | None) -> CacheKey:
        named = document[_PARAMETERS].get("model") if model is None else model
        return CacheKey(
            digest=self._digest(_encoded(document)),
            namespace=self._namespace if namespace is None else namespace,
            prefix=self._prefix,
            model=named if type(named) is str else None,
        )

    def _digest(self, message: bytes) -> str:
        if self._secret is None:
            return hashlib.sha256(message).hexdigest()
        return hmac.digest(self._secret, message, "sha256").hex()


class Unsigned:
    """A request that was read and has no key yet: what is left takes time, or is not ours."""

    __slots__ = ("_document", "_engine", "_key", "_lock", "_model", "_namespace", "_rules", "_texts")

    def __init__(
        self,
        engine: CacheSignatureEngine,
        document: list[Any],
        *,
        texts: list[Text],
        rules: Normalizers,
        namespace: str | None,
        model: str | None,
    ) -> None:
        self._engine = engine
        self._model = model
        self._document = document
        self._texts = texts
        self._rules = rules
        self._namespace = namespace
        self._lock = threading.Lock()
        self._key: CacheKey | SignatureError | None = None

    def sign(self) -> CacheKey:
        """Return the key, in whichever thread, as often as it is asked for. Raises `SignatureError`."""
        with self._lock:
            if self._key is None:
                self._key = self._signed()
        if isinstance(self._key, SignatureError):
            raise SignatureError(self._key.reason, path=self._key.path)
        return self._key

    def _signed(self) -> CacheKey | SignatureError:
        try:
            _normalize(self._document, self._texts, self._rules)
            return self._engine._key(self._document, self._namespace, self._model)  # noqa: SLF001 - the other half of `read`
        except SignatureError as error:
            return error


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """A request taken apart. `canonical` contains the prompt, all the rest nothing of it."""

    canonical: bytes
    """What is digested."""
    left_out: tuple[str, ...]
    """Paths of what does not count."""
    normalized: tuple[Normalized, ...]
    """What was stripped, and where."""


def _takes_long(texts: list[Text], rules: Normalizers) -> bool:
    if rules.is_foreign:
        return bool(texts)
    return sum(len(text.said) for text in texts) > _MUCH


def _normalize(document: list[Any], texts: list[Text], rules: Normalizers) -> tuple[Normalized, ...]:
    try:
        return normalize(document, texts, rules)
    except Refused as refused:
        raise SignatureError(refused.reason, path=refused.path()) from None


def _encoded(document: list[Any]) -> bytes:
    try:
        return _ENCODER.encode(document)
    except RuntimeError as error:
        # The caller's own stack was nearly used up.
        raise SignatureError(f"could not be read ({type(error).__name__})", path="") from None


# Shared by all threads: an encoder keeps nothing between two calls. "deterministic" sorts the keys.
_ENCODER = msgspec.json.Encoder(order="deterministic")


def _secret_bytes(secret: str | bytes | None) -> bytes | None:
    if secret is None:
        return None
    if not secret:
        # An unset variable in a deployment's environment: whoever asked for a secret must not get none.
        raise ConfigError("the secret is empty; give None for keys without a secret")
    return secret.encode("utf-8", "surrogatepass") if isinstance(secret, str) else bytes(secret)
