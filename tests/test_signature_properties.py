"""What holds for every request: one key per meaning, one meaning per key, and no other error."""

from __future__ import annotations

import copy
import datetime
import decimal
import enum
import json
import math
import unicodedata
import uuid
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from llmcache_plugins.errors import SignatureError
from llmcache_plugins.keys import CacheKey
from llmcache_plugins.signature import LEFT_OUT, SCHEME, CacheSignatureEngine

if TYPE_CHECKING:
    from collections.abc import Iterator

ENGINE = CacheSignatureEngine()

quick = settings(deadline=None, max_examples=60)


def digest(request: Any, **how: Any) -> str:
    return ENGINE.compute_signature(request, **how).digest


def outcome(request: Any, **how: Any) -> CacheKey | SignatureError:
    try:
        return ENGINE.compute_signature(request, **how)
    except SignatureError as error:
        return error


# --- Strategies ---------------------------------------------------------------------------------------------

# Characters that compose with each other, that JSON escapes, and that could be taken for its punctuation.
tricky = st.text(alphabet='ab1"\\,:[]{}\n\x00 éÅ\u0301\u030a\u1112\u1161\u11ab😀', max_size=6)
texts = tricky | st.text(max_size=8)
integers = st.integers(-(2**70), 2**70) | st.integers(-2, 2)
floats = st.floats(allow_nan=False, allow_infinity=False)
atoms = st.none() | st.booleans() | integers | floats | texts


def spelled(text: str) -> str:
    return unicodedata.normalize("NFC", text)


# Names that do not collapse into one: a request with two spellings of one name has no key.
names = texts.map(spelled)
json_values = st.recursive(
    atoms,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
messages = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["user", "assistant"]),
            "content": texts | st.lists(json_values, max_size=2),
        },
        optional={"name": st.none() | texts, "tool_calls": st.none() | st.lists(json_values, max_size=2)},
    ),
    max_size=3,
)
bodies = st.fixed_dictionaries(
    {"model": texts},
    optional={
        "messages": messages,
        "input": texts | messages,
        "tools": st.lists(json_values, max_size=2),
        "temperature": floats | st.integers(0, 2),
        "logit_bias": st.dictionaries(st.integers(0, 99).map(str), st.integers(-100, 100), max_size=3),
        "response_format": json_values,
        "extra_body": json_values,
        "something_unknown": json_values,
    },
)

# --- A second opinion ---------------------------------------------------------------------------------------


def meaning(value: Any) -> Any:
    """Return a hashable that is equal for equal JSON values and only for those; written to be obvious."""
    if isinstance(value, dict):
        return ("object", frozenset((spelled(key), meaning(item)) for key, item in value.items()))
    if isinstance(value, list | tuple):
        return ("array", tuple(meaning(item) for item in value))
    if isinstance(value, str):
        return ("string", spelled(value))
    if value is None or isinstance(value, bool):
        return ("atom", str(value))
    return ("number", value)  # 1 == 1.0 and hash(1) == hash(1.0)


# --- Other spellings of a request ---------------------------------------------------------------------------


def disguised(draw: st.DrawFn, value: Any) -> Any:
    """Return another spelling of a value."""
    if isinstance(value, dict):
        keys = draw(st.permutations(list(value)))
        return {disguised_key(draw, key): disguised(draw, value[key]) for key in keys}
    if isinstance(value, list):
        items = [disguised(draw, item) for item in value]
        return tuple(items) if draw(st.booleans()) else items
    if isinstance(value, str):
        return unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), value)
    if isinstance(value, float) and value.is_integer():
        return int(value) if draw(st.booleans()) else value
    if type(value) is int and abs(value) <= 2**53:
        return float(value) if draw(st.booleans()) else value
    return value


def disguised_key(draw: st.DrawFn, key: str) -> str | int:
    if key.isascii() and key.isdigit() and str(int(key)) == key and draw(st.booleans()):
        return int(key)
    return unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), key)


@st.composite
def two_spellings(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    body = draw(bodies)
    other = disguised(draw, body)
    for message in other.get("messages", ()):
        message.update(dict.fromkeys(draw(st.sets(st.sampled_from(["refusal", "audio"])))))
    other |= dict.fromkeys(draw(st.sets(st.sampled_from(["seed", "stop", "api_base"]))))
    other |= {name: object() for name in draw(st.sets(st.sampled_from(sorted(LEFT_OUT)), max_size=3))}
    order = draw(st.permutations(list(other)))
    return body, {key: other[key] for key in order}


@quick
@given(two_spellings())
def test_all_spellings_of_a_request_have_one_key(pair: tuple[dict[str, Any], dict[str, Any]]) -> None:
    body, other = pair
    assert ENGINE.canonical(body) == ENGINE.canonical(other)
    assert ENGINE.compute_signature(body) == ENGINE.compute_signature(other)


@quick
@given(bodies)
def test_a_round_trip_through_json_changes_no_key(body: dict[str, Any]) -> None:
    assert digest(json.loads(json.dumps(body))) == digest(body)


@quick
@given(bodies)
def test_the_canonical_form_is_json_and_its_own_canonical_form(body: dict[str, Any]) -> None:
    canonical = ENGINE.canonical(body)
    scheme, kind, namespace, prompt, parameters = json.loads(canonical)
    assert (scheme, kind, namespace, prompt) == (SCHEME, "plain", "default", None)
    assert ENGINE.canonical(parameters) == canonical


@quick
@given(bodies, st.dictionaries(names, json_values, max_size=2))
def test_a_request_is_never_changed(body: dict[str, Any], scope: dict[str, Any]) -> None:
    before = repr(copy.deepcopy((body, scope)))
    digest(body, scope=scope)
    assert repr((body, scope)) == before


# --- Other meanings -----------------------------------------------------------------------------------------


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all leaves that are not None: a None may be nothing."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    elif value is not None:
        yield path


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


def with_leaf(value: Any, path: tuple[Any, ...], leaf: Any) -> Any:
    changed = copy.deepcopy(value)
    at(changed, path[:-1])[path[-1]] = leaf
    return changed


@quick
@given(bodies, st.data())
def test_any_other_leaf_gives_another_key(body: dict[str, Any], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(list(leaves(body))))
    leaf = data.draw(atoms | st.lists(atoms, max_size=1))
    assume(meaning(leaf) != meaning(at(body, path)))
    assert digest(with_leaf(body, path, leaf)) != digest(body)


@quick
@given(bodies, st.data())
def test_one_character_more_gives_another_key(body: dict[str, Any], data: st.DataObject) -> None:
    found = [path for path in leaves(body) if isinstance(at(body, path), str)]
    path = data.draw(st.sampled_from(found))
    longer = at(body, path) + data.draw(st.characters(exclude_categories=["Cs", "Mn"]))
    assume(spelled(longer) != spelled(at(body, path)))
    assert digest(with_leaf(body, path, longer)) != digest(body)


@quick
@given(st.data())
def test_two_values_share_a_key_exactly_if_they_mean_the_same(data: st.DataObject) -> None:
    few = st.sampled_from([None, True, False, 0, 1, 1.0, -0.0, 0.5, "", "1", "é", "e\u0301", "true", "null"])
    keys = st.sampled_from(["", "1", "é", "a"])
    small = st.recursive(
        few,
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(keys, inner, max_size=2),
        max_leaves=4,
    )
    one, other = data.draw(small), data.draw(small)
    assert (digest({"a": [one]}) == digest({"a": [other]})) == (meaning(one) == meaning(other))


@quick
@given(floats, floats)
@example(0.1 + 0.2, 0.3)
@example(5e-324, 0.0)
@example(1e22, math.nextafter(1e22, math.inf))
def test_two_floats_share_a_key_exactly_if_they_are_equal(one: float, other: float) -> None:
    assert (digest({"a": one}) == digest({"a": other})) == (one == other)
    following = math.nextafter(one, math.inf)
    if math.isfinite(following):
        assert digest({"a": one}) != digest({"a": following})


# --- No boundary can be moved -------------------------------------------------------------------------------


def cuts(draw: st.DrawFn, text: str, pieces: int) -> list[str]:
    places = sorted(draw(st.lists(st.integers(0, len(text)), min_size=pieces - 1, max_size=pieces - 1)))
    return [text[start:end] for start, end in zip([0, *places], [*places, len(text)], strict=True)]


@st.composite
def two_cuts(draw: st.DrawFn) -> tuple[list[str], list[str]]:
    # ASCII: two cuts must not differ only by what NFC makes of the pieces.
    text = draw(st.text(alphabet='ab",:[]{}\\ \n', min_size=1, max_size=12))
    pieces = draw(st.integers(2, 4))
    one, other = cuts(draw, text, pieces), cuts(draw, text, pieces)
    assume(one != other)
    return one, other


@quick
@given(two_cuts())
def test_a_character_cannot_move_between_neighbours(pair: tuple[list[str], list[str]]) -> None:
    one, other = pair
    assert digest({"a": one}) != digest({"a": other})
    assert digest({"a": [one]}) != digest({"a": other})
    assert digest(dict(zip("abcd", one, strict=False))) != digest(dict(zip("abcd", other, strict=False)))
    contents = [{"model": "m", "messages": [{"role": "user", "content": c} for c in cut]} for cut in pair]
    assert digest(contents[0]) != digest(contents[1])


@quick
@given(two_cuts())
def test_a_character_cannot_move_between_key_and_value(pair: tuple[list[str], list[str]]) -> None:
    (key, value, *_), (other_key, other_value, *_) = pair
    assume((key, value) != (other_key, other_value))
    assert digest({"a": {key: value}}) != digest({"a": {other_key: other_value}})


@quick
@given(two_cuts())
def test_a_character_cannot_move_between_kind_namespace_and_prompt(pair: tuple[list[str], list[str]]) -> None:
    (kind, space, *rest), (other_kind, other_space, *other_rest) = pair
    one = digest("".join(rest), kind=kind, namespace=space)
    other = digest("".join(other_rest), kind=other_kind, namespace=other_space)
    different = (kind, space, "".join(rest)) != (other_kind, other_space, "".join(other_rest))
    assert (one != other) == different


@quick
@given(texts, bodies)
def test_a_prompt_never_passes_for_a_body(prompt: str, body: dict[str, Any]) -> None:
    assert digest(prompt) not in {digest(body), digest({"prompt": prompt})}
    assert digest(ENGINE.canonical(body).decode()) != digest(body)


# --- Scope --------------------------------------------------------------------------------------------------

plain_names = st.sampled_from(["api_base", "base_url", "api_version", "model", "organization", "x"])
scopes = st.dictionaries(plain_names, st.none() | st.sampled_from(["http://a", "http://a/", "b"]), max_size=3)


@quick
@given(bodies, scopes)
def test_a_scope_is_what_the_request_could_have_said(body: dict[str, Any], scope: dict[str, Any]) -> None:
    assume(not {"api_base", "base_url"} <= scope.keys())
    assert digest(body, scope=scope) == digest({**scope, **body})


# --- Anything at all ----------------------------------------------------------------------------------------


class Shade(enum.Enum):
    PALE = "pale"
    DARK = b"dark"


class Raising:
    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError

    def __hash__(self) -> int:
        return 0

    def __str__(self) -> str:
        raise ZeroDivisionError


class Lying:
    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return dict

    def model_dump(self, **_: Any) -> Any:
        return self.__dict__


oddities = st.sampled_from(
    [
        float("nan"),
        float("inf"),
        b"",
        bytearray(),
        10**1000,
        1j,
        ...,
        NotImplemented,
        decimal.Decimal(1),
        datetime.date(2020, 1, 1),
        uuid.UUID(int=1),
        int,
        len,
        Shade.PALE,
        Shade.DARK,
        Shade,
        Lying,
        object(),
        range(2),
        {1}.__iter__(),
        ENGINE,
    ]
)
any_text = st.text(alphabet=st.characters(exclude_categories=[]), max_size=4)
hashables = (
    any_text | st.none() | st.booleans() | st.integers() | st.floats() | st.binary(max_size=2) | oddities
)
# Made when drawn, for hypothesis prints what there is to choose from; no keys, for it compares those.
hostile = st.builds(Raising) | st.builds(Lying)
anything = st.recursive(
    hashables | hostile,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(hashables.filter(lambda key: not isinstance(key, bytearray)), inner, max_size=3)
        | st.sets(st.integers(), max_size=2)
        | st.frozensets(any_text, max_size=2)
    ),
    max_leaves=10,
)
top_names = any_text | st.sampled_from(
    ["model", "messages", "input", "api_base", "base_url", "extra_headers"]
)


@settings(deadline=None, max_examples=150)
@given(
    st.dictionaries(top_names, anything, max_size=4) | anything,
    st.dictionaries(top_names, anything, max_size=1),
)
def test_anything_has_a_key_or_a_signature_error(request: Any, scope: dict[str, Any]) -> None:
    result = outcome(request, scope=scope)
    if isinstance(result, SignatureError):
        # It can be printed, whatever the keys on its path are.
        assert str(result).encode().startswith(result.path.encode())
    else:
        assert isinstance(result, CacheKey)


@quick
@given(st.lists(st.sampled_from([list, dict, tuple]), min_size=1, max_size=6))
def test_every_cycle_is_refused(kinds: list[type]) -> None:
    ring: list[Any] = []
    inner: Any = ring
    for kind in kinds:
        inner = {"again": inner} if kind is dict else kind([inner])
    ring.append(inner)
    with pytest.raises(SignatureError, match=r"^a\[0\].* contains itself"):
        digest({"a": ring})
