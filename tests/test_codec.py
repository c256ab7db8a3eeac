"""Stored bytes: whatever they are, they are an entry of ours or a `CorruptEntry`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from entries import entry_of, key_of
from hypothesis import given
from hypothesis import strategies as st

from llmcache_plugins import codec
from llmcache_plugins.errors import CorruptEntry
from llmcache_plugins.models import AnswerFacts, EncodedAnswer, Entry, Provenance, Usage

VECTORS = Path(__file__).parent / "vectors" / "envelope.json"
HEADER = b"0000000000000002" + b"1764000000123456" + b"1764000000000001" + b"1764000000000002"
DIGEST = key_of("a", namespace="x").digest
ENTRY = entry_of("x" * 200)

texts = st.text(st.characters(exclude_categories=["Cs"]))
seconds = st.floats(0, 1e10)
entries = st.builds(
    Entry,
    answer=st.builds(
        EncodedAnswer,
        kind=texts,
        payload=st.binary(),
        facts=st.builds(
            AnswerFacts,
            model=st.none() | texts,
            usage=st.none() | st.builds(Usage, input_tokens=st.integers(0, 2**60)),
            finish_reasons=st.lists(texts).map(tuple),
        ),
    ),
    created=seconds,
    fresh_until=seconds,
    provider_seconds=seconds,
    stale_for=seconds,
    provenance=st.builds(Provenance, model=st.none() | texts, tags=st.lists(texts).map(tuple)),
    leaves=st.binary(),
)


@given(entry=entries, compress_from=st.sampled_from([0, 10**9]))
def test_every_entry_comes_back_equal_compressed_or_not(entry: Entry, compress_from: int):
    body = codec.encode_body(entry, digest=DIGEST, compress_from=compress_from)
    assert codec.read_body(HEADER + body, digest=DIGEST) == entry
    header = codec.read_header(HEADER + body)
    assert (header.fence, header.birth, header.checked) == (
        "1764000000123456",
        "1764000000000001",
        "1764000000000002",
    )


@given(junk=st.binary())
def test_any_bytes_are_an_entry_or_corrupt_and_nothing_else(junk: bytes):
    for stored in (junk, HEADER + junk, HEADER + b"\x00" + junk, HEADER + b"\x01" + junk):
        try:
            codec.read_header(stored)
            codec.read_body(stored, digest=DIGEST)
        except CorruptEntry:
            pass


@given(data=st.data(), compress_from=st.sampled_from([0, 10**9]))
def test_a_cut_body_is_corrupt(data: st.DataObject, compress_from: int):
    stored = HEADER + codec.encode_body(ENTRY, digest=DIGEST, compress_from=compress_from)
    cut = data.draw(st.integers(0, len(stored) - 1))
    with pytest.raises(CorruptEntry):
        codec.read_body(stored[:cut], digest=DIGEST)


def test_an_entry_of_another_key_is_not_read():
    body = codec.encode_body(entry_of("x"), digest=DIGEST, compress_from=10**9)
    with pytest.raises(CorruptEntry, match="another key"):
        codec.read_body(HEADER + body, digest=key_of("b", namespace="x").digest)


def test_a_few_bytes_that_claim_gigabytes_do_not_fill_the_memory():
    bomb = codec.zstd.compress(b"\x00" * (codec.MAX_STORABLE_BYTES + 1))
    assert len(bomb) < 20_000
    with pytest.raises(CorruptEntry, match="too large"):
        codec.read_body(HEADER + b"\x01" + bomb, digest=DIGEST)


def test_long_answers_are_stored_smaller():
    entry = entry_of("The same sentence, over and over. " * 100)
    small = codec.encode_body(entry, digest=DIGEST, compress_from=1024)
    large = codec.encode_body(entry, digest=DIGEST, compress_from=10**9)
    assert len(small) < len(large) / 5


def test_entries_written_by_released_versions_are_still_read():
    """A change that fails here needs a new format version in the same commit."""
    vectors = json.loads(VECTORS.read_text())
    assert int(codec.version_field()) == vectors["version"]
    for vector in vectors["entries"]:
        entry = codec.read_body(bytes.fromhex(vector["stored"]), digest=vector["digest"])
        assert entry.answer.kind == vector["kind"]
        assert entry.answer.payload == bytes.fromhex(vector["payload"])
        assert entry.created == vector["created"]
        usage = entry.answer.facts.usage
        assert (usage.total_tokens if usage else None) == vector["tokens"]
        assert entry.provenance.model == vector["model"]
        assert list(entry.provenance.tags) == vector["tags"]
        assert entry.stale_for == vector["stale_for"]
        assert entry.leaves.hex() == vector["leaves"]
