"""How keys are spelled, and that no name reaches outside its own."""

from __future__ import annotations

import fnmatch
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcache_plugins.keys import BUCKETS_IN_CLUSTER, BUCKETS_ON_SERVER, CacheKey, KeyLayout, encode_name

DIGEST = "0123456789abcdef" * 4
ALPHABET = frozenset(string.ascii_letters + string.digits + "_.-%")

# All of them, lone surrogates too: a name may come from a file name or a header.
any_name = st.text(alphabet=st.characters(exclude_categories=[]), max_size=80)
digests = st.text(alphabet="0123456789abcdef", min_size=64, max_size=64)


def layout(namespace: str = "faq", *, prefix: str = "llm", buckets: int = BUCKETS_ON_SERVER) -> KeyLayout:
    return KeyLayout(prefix=prefix, namespace=namespace, buckets=buckets)


def hash_tag(key: str) -> str:
    """Return what Redis Cluster hashes of a key, after its specification."""
    start = key.find("{")
    end = key.find("}", start + 1)
    return key[start + 1 : end] if start >= 0 and end > start + 1 else key


# --- Names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        ("default", "default"),
        ("Team_A-1.eu", "Team_A-1.eu"),
        ("", ""),
        ("a b", "a%20b"),
        ("a:b", "a%3Ab"),
        ("{x}", "%7Bx%7D"),
        ("*?[]", "%2A%3F%5B%5D"),
        ("~", "%7E"),
        ("%", "%25"),
        ("é", "%C3%A9"),
        ("\ud800", "%ED%A0%80"),
        ("x" * 64, "x" * 64),
    ],
)
def test_a_name_is_percent_encoded(name: str, spelling: str) -> None:
    assert encode_name(name) == spelling


@pytest.mark.parametrize("name", ["x" * 65, "é" * 11, " " * 22])
def test_a_long_name_is_its_digest(name: str) -> None:
    assert re.fullmatch("%-[0-9a-f]{64}", encode_name(name))


@given(any_name)
def test_a_spelling_has_only_harmless_characters(name: str) -> None:
    spelling = encode_name(name)
    assert set(spelling) <= ALPHABET
    assert len(spelling) <= 66


@given(any_name, any_name)
def test_two_names_never_have_one_spelling(one: str, other: str) -> None:
    assert (encode_name(one) == encode_name(other)) == (one == other)


@given(any_name)
def test_no_name_passes_for_the_spelling_of_another(name: str) -> None:
    spelling = encode_name(name)
    assert encode_name(spelling) == spelling or encode_name(spelling) != encode_name(name)


def test_a_name_that_looks_like_a_digest_is_none() -> None:
    pretended = encode_name("x" * 65)
    assert encode_name(pretended) != pretended


# --- CacheKey -----------------------------------------------------------------------------------------------


def test_a_key_reads_as_prefix_and_digest() -> None:
    assert str(CacheKey(digest=DIGEST)) == f"llm:resp:{DIGEST}"
    assert str(CacheKey(digest=DIGEST, prefix="app")) == f"app:resp:{DIGEST}"


def test_a_key_knows_where_its_entry_lies() -> None:
    key = CacheKey(digest="00ff" + DIGEST[4:], namespace="faq")
    assert key.redis_key() == f"llm:{{faq.0}}:resp:{key.digest}"
    assert key.redis_key(buckets=BUCKETS_IN_CLUSTER) == f"llm:{{faq.63}}:resp:{key.digest}"


def test_keys_are_equal_by_value_and_cannot_change() -> None:
    key = CacheKey(digest=DIGEST, namespace="a")
    assert {key, CacheKey(digest=DIGEST, namespace="a")} == {key}
    assert key != CacheKey(digest=DIGEST, namespace="b")
    with pytest.raises(AttributeError):
        key.digest = "0"  # type: ignore[misc]


# --- KeyLayout ----------------------------------------------------------------------------------------------


def test_the_keys_of_a_request_lie_in_its_bucket() -> None:
    cluster = layout(buckets=BUCKETS_IN_CLUSTER)
    digest = "0007" + DIGEST[4:]
    keys = cluster.request(digest)
    assert keys["entry"] == f"llm:{{faq.7}}:resp:{digest}"
    assert keys["lease"] == f"llm:{{faq.7}}:lease:{digest}"
    assert keys["marks"] == cluster.bucket(7)["marks"] == "llm:{faq.7}:marks"


@given(digests)
def test_a_server_has_one_bucket_and_a_cluster_64(digest: str) -> None:
    assert layout().bucket_of(digest) == 0
    assert layout(buckets=BUCKETS_IN_CLUSTER).bucket_of(digest) == int(digest, 16) >> 240 & 63


def test_every_bucket_is_used() -> None:
    cluster = layout(buckets=BUCKETS_IN_CLUSTER)
    assert {cluster.bucket_of(f"{n:04x}" + DIGEST[4:]) for n in range(64)} == set(range(64))


@given(any_name, any_name, digests)
def test_a_bucket_is_one_hash_slot(prefix: str, namespace: str, digest: str) -> None:
    cluster = layout(namespace, prefix=prefix, buckets=BUCKETS_IN_CLUSTER)
    bucket = cluster.bucket_of(digest)
    assert hash_tag(cluster.request(digest)["lease"]) == hash_tag(cluster.bucket(bucket)["marks"])
    assert hash_tag(cluster.request(digest)["entry"]) == f"{encode_name(namespace)}.{bucket}"


@given(any_name, any_name, digests, st.sampled_from([BUCKETS_ON_SERVER, BUCKETS_IN_CLUSTER]))
def test_the_matcher_reads_what_the_layout_writes(
    prefix: str, namespace: str, digest: str, buckets: int
) -> None:
    names = layout(namespace, prefix=prefix, buckets=buckets)
    found = names.matcher().fullmatch(names.request(digest)["entry"])
    assert found is not None
    assert found["name"] == f"resp:{digest}"
    assert int(found["bucket"]) == names.bucket_of(digest)


@given(any_name, any_name, digests)
def test_the_pattern_covers_the_namespace(prefix: str, namespace: str, digest: str) -> None:
    names = layout(namespace, prefix=prefix, buckets=BUCKETS_IN_CLUSTER)
    for key in (names.request(digest)["entry"], names.bucket(7)["marks"]):
        assert fnmatch.fnmatchcase(key, names.pattern())


@given(any_name, any_name, any_name, any_name, digests)
def test_the_matcher_knows_no_other_namespace(
    prefix: str, namespace: str, other_prefix: str, other_namespace: str, digest: str
) -> None:
    own, other = layout(namespace, prefix=prefix), layout(other_namespace, prefix=other_prefix)
    mine = (prefix, namespace) == (other_prefix, other_namespace)
    assert (own.matcher().fullmatch(other.request(digest)["entry"]) is not None) == mine


@pytest.mark.parametrize(
    ("own", "other"),
    [("a", "a.0"), ("a.0", "a"), ("a", "a.0}:resp:x{a"), ("a.b", "axb"), ("", ".0")],
)
def test_a_namespace_with_dots_is_no_neighbours(own: str, other: str) -> None:
    assert not layout(own).matcher().fullmatch(layout(other).request(DIGEST)["entry"])


@pytest.mark.parametrize(
    "key",
    [
        f"llm:{{faq.0}}:wake:{DIGEST}",
        f"llm:{{faq.0}}:chunks:{DIGEST}",
        f"llm:{{faq.0}}:resp:{DIGEST}:{'0' * 16}",
        f"llm:{{faq.0}}:resp:{DIGEST}x",
        f"llm:{{faq.0}}:resp:{DIGEST[:-1]}",
        f"llm:{{faq.0}}:resp:{DIGEST.upper()}",
        f"xllm:{{faq.0}}:resp:{DIGEST}",
        f"llm:{{faq.}}:resp:{DIGEST}",
        "llm:{faq.0}:marks",
    ],
)
def test_the_matcher_knows_only_what_belongs_to_a_request(key: str) -> None:
    assert not layout().matcher().fullmatch(key)
