"""Where options come from: the command line, the environment, a file; and what is said of a bad file."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from command import llmcache
from entries import entry_of, key_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmcache_plugins import CacheConfig, ResponseRepository
from llmcache_plugins.cli.app import _VERBS
from llmcache_plugins.cli.configuration import read_defaults
from llmcache_plugins.cli.support import CannotRun

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from servers import Server

    Called = Callable[..., tuple[int, str, str]]

NOBODY = "redis://:hush@127.0.0.1:1"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working directory, which is empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def configured(directory: Path, text: str, name: str = "llmcache.toml") -> Path:
    file = directory / name
    file.write_text(text, "utf-8")
    return file


def fill(url: str, *namespaces: str, prefix: str = "llm") -> None:
    async def fill_all() -> None:
        async with ResponseRepository(
            url, config=CacheConfig(prefix=prefix, socket_timeout=10.0)
        ) as repository:
            for name in namespaces:
                await repository.persist(key_of("q", namespace=name), entry_of("x"))

    asyncio.run(fill_all())


class TestPrecedence:
    """`clear` says whose answers it removed, which is where its namespace came from."""

    def cleared(self, called: Called, *more: str) -> str:
        code, out, err = called(*more, "--yes", "--json")
        assert (code, err) == (0, "")
        return json.loads(out)["namespace"]

    def test_a_flag_beats_the_environment_which_beats_the_file(
        self, valkey: Server, here: Path, called: Called, monkeypatch: pytest.MonkeyPatch
    ):
        configured(here, f'url = "{valkey.url}"\nnamespace = "of-the-file"\n')
        assert self.cleared(called, "clear") == "of-the-file"
        monkeypatch.setenv("LLMCACHE_NAMESPACE", "of-the-environment")
        assert self.cleared(called, "clear") == "of-the-environment"
        assert self.cleared(called, "clear", "--namespace", "of-the-flag") == "of-the-flag"

    def test_a_verb_s_table_beats_what_holds_for_all(self, valkey: Server, here: Path, called: Called):
        configured(here, f'url = "{valkey.url}"\nnamespace = "all"\n[clear]\nnamespace = "clear"\n')
        assert self.cleared(called, "clear") == "clear"

    def test_the_file_is_the_one_that_is_named(
        self, valkey: Server, here: Path, called: Called, monkeypatch: pytest.MonkeyPatch
    ):
        configured(here, "this is not read")
        where = f'url = "{valkey.url}"\n'
        one = configured(here, f'{where}namespace = "one"\n', "one.toml")
        other = configured(here, f'{where}namespace = "other"\n', "other.toml")
        monkeypatch.setenv("LLMCACHE_CONFIG", str(one))
        assert self.cleared(called, "clear") == "one"
        assert self.cleared(called, "--config", str(other), "clear") == "other"

    def test_every_setting_of_the_cache_may_come_from_each_of_them(
        self, valkey: Server, here: Path, called: Called, monkeypatch: pytest.MonkeyPatch
    ):
        given = {"namespace": "n", "tenant": "t", "prefix": "p", "secret": "s"}
        of_tenant = CacheConfig(**given).namespace
        configured(here, "".join(f'{k} = "{v}"\n' for k, v in {**given, "url": valkey.url}.items()))
        fill(valkey.url, of_tenant, prefix="p")
        _, out, _ = called("clear", "--yes", "--json")
        assert (json.loads(out)["entries"], json.loads(out)["tenant"]) == (1, "t")
        configured(here, "")
        for name, value in {**given, "url": valkey.url}.items():
            monkeypatch.setenv(f"LLMCACHE_{name.upper()}", value)
        fill(valkey.url, of_tenant, prefix="p")
        _, out, _ = called("clear", "--yes", "--json")
        assert (json.loads(out)["entries"], json.loads(out)["tenant"]) == (1, "t")

    def test_the_url_is_doctor_s_argument(self, here: Path, called: Called):
        configured(here, f'url = "{NOBODY}"\n')
        code, _, err = called("doctor")
        assert code == 2
        assert err.startswith("llmcache doctor: redis://127.0.0.1:1: ")

    def test_lists_and_numbers(self, here: Path):
        file = configured(
            here, '[explain]\nnormalizer = ["uuid", "timestamp"]\n[demo]\nprice-in = 1\nmodel = "x"\n'
        )
        found = read_defaults(file, _VERBS)
        assert found["explain"] == {"normalizer": ["uuid", "timestamp"]}
        assert found["demo"] == {"price_in": 1.0, "model": "x"}

    def test_a_list_of_the_file_s_reaches_the_verb(
        self, valkey: Server, here: Path, called: Called, namespace: str
    ):
        configured(
            here, f'url = "{valkey.url}"\nnamespace = "{namespace}"\n[explain]\nnormalizer = ["uuid"]\n'
        )
        request = here / "request.json"
        request.write_text('"Ticket 6ba7b810-9dad-11d1-80b4-00c04fd430c8"')
        code, out, _ = called("explain", str(request), "--json")
        assert code == 1
        assert [one["rule"] for one in json.loads(out)["normalized"]] == ["uuid"]


BAD = {
    "not TOML (line 1, column 5)": "url redis://:hush@h",
    "not TOML": 'url = "redis://:hush@h',
    "nested too deep": "url = " + "[" * 5000,
    "not UTF-8": b'url = "\xff"',
    "outside of a verb's table": "most = 3",
    "[dctor]: there is no such verb": "[dctor]\nbudget = 1",
    "there is a key that is the name of no option": '"redis://:hush@h" = 1',
    "[doctor] bugdet is no option": "[doctor]\nbugdet = 1",
    "[doctor] there is a key that is no option": '[doctor]\n"redis://:hush@h" = 1',
    "[doctor] tenant is no option": '[doctor]\ntenant = "hush"',
    "[clear] yes is no option": "[clear]\nyes = true",
    "[explain] file is no option": '[explain]\nfile = "x.json"',
    "[doctor] help is no option": "[doctor]\nhelp = true",
    "[demo] api-base is no option": '[demo]\napi-base = "http://hush"',
    "[calibrate] embedder is no option": '[calibrate]\nembedder = "hush:Embedder"',
    "clear is a verb": "clear = 3",
    "url: expected `str`": 'url = ["redis://:hush@h"]',
    "secret: expected `str`": "secret = 1234",
    "[doctor] budget: expected `float`": '[doctor]\nbudget = "hush"',
    "[demo] limit: expected `int` >= 1": "[demo]\nlimit = 0",
    "[demo] limit: expected `int`, got `bool`": "[demo]\nlimit = true",
    "[explain] normalizer: expected `str`": "[explain]\nnormalizer = [1]",
    "[demo] price-in is there twice": "[demo]\nprice_in = 1\nprice-in = 1234",
}


class TestBadFiles:
    @pytest.mark.parametrize(("said", "text"), BAD.items(), ids=list(BAD))
    def test_one_sentence_names_file_and_key_and_no_value(
        self, here: Path, called: Called, said: str, text: str | bytes
    ):
        file = here / "llmcache.toml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        code, out, err = called("doctor", "--json")
        assert code == 2
        assert err.startswith("llmcache: llmcache.toml: ")
        assert said in err
        assert len(err.splitlines()) == 1
        assert json.loads(out)["error"]["type"] == "CannotRun"
        assert "hush" not in out + err
        assert "1234" not in out + err

    @pytest.mark.parametrize("what", ["missing.toml", "."])
    def test_a_file_that_is_named_must_be_readable(self, here: Path, called: Called, what: str):
        code, out, err = called("--config", what, "doctor")
        assert (code, out) == (2, "")
        assert f"{what}: cannot be read (" in err

    def test_help_is_to_be_had_all_the_same(self, here: Path, called: Called):
        configured(here, "[")
        for arguments in (("--help",), ("clear", "--help"), ("clear", "-h")):
            assert called(*arguments)[0] == 0
        assert called("clear", "--tenant", "--help")[0] == 2

    @settings(
        max_examples=50,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )
    @given(
        tree=st.dictionaries(
            st.sampled_from(["url", "secret", "clear", "doctor", "demo", "x", "", "\x1b[31m"]),
            st.recursive(
                st.none() | st.booleans() | st.integers() | st.text(),
                lambda inner: st.dictionaries(
                    st.sampled_from(["url", "namespace", "json", "limit", "a b"]), inner, max_size=3
                ),
                max_leaves=5,
            ),
        )
    )
    def test_any_document_is_read_or_refused_in_a_printable_sentence(
        self, tree: dict[str, Any], tmp_path: Path
    ):
        def toml(value: Any) -> str:
            if isinstance(value, dict):
                return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
            return json.dumps("none" if value is None else value).replace("\x7f", "\\u007f")

        text = "".join(f"{json.dumps(key)} = {toml(value)}\n" for key, value in tree.items())
        said = ""
        try:
            read_defaults(configured(tmp_path, text), _VERBS)
        except CannotRun as error:
            said = str(error)
        assert said.isprintable()


class TestSecrets:
    def test_they_are_in_no_help_and_no_error(self, here: Path, called: Called, monkeypatch):
        configured(here, f'url = "{NOBODY}"\nsecret = "whisper"\nnamespace = "n"\n')
        monkeypatch.setenv("LLMCACHE_SECRET", "whisper")
        request = here / "request.json"
        request.write_text('"q"')
        for verb in _VERBS:
            _, out, err = called(verb, "--help")
            assert "hush" not in out + err
            # With something before it the file is read.
            _, out, err = called(verb, "--json", "--help")
            assert "hush" not in out + err
            assert "whisper" not in out + err
        for arguments in (("clear", "--yes"), ("doctor",), ("explain", str(request))):
            for more in ((), ("--json",)):
                code, out, err = called(*arguments, *more)
                assert code == 2
                assert "hush" not in out + err
                assert "whisper" not in out + err

    def test_a_bad_url_of_the_file_s_is_refused_without_it(self, here: Path, called: Called):
        configured(here, 'url = "redis://:hush/x@h:port"\nnamespace = "n"\n')
        code, out, err = called("clear", "--yes")
        assert (code, out) == (2, "")
        assert "hush" not in err


def test_a_process_of_its_own_reads_the_directory_s_file(tmp_path: Path):
    done = llmcache("--config", configured(tmp_path, "[clear]\nx = 1\n"), "clear", "--yes")
    assert (done.returncode, done.stdout) == (2, "")
    assert "[clear] x is no option that a file may set" in done.stderr
