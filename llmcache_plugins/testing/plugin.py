"""The plugin for pytest: `pytest --llmcache=record|replay|strict`.

Owns the options, which cassette belongs to which test, and what is reported. Importing this imports nothing
of the library: a session that does not ask for it has some options more, and that is all. What a session does
is in `llmcache_plugins.testing.recording`.

    tests/test_shop.py::test_answer        tests/cassettes/test_shop/test_answer.json
    tests/conftest.py, a session fixture   tests/cassettes/conftest/fixture-NAME.json
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import inspect
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from llmcache_plugins.testing.recording.deck import Deck
    from llmcache_plugins.testing.recording.session import Recording

_WAYS = ("record", "replay", "strict", "off")
_NAME = "llmcache-recording"
_OFF = "llmcache_off"
_LONGEST_NAME = 100
_PATIENCE = 2.0
"""Seconds that a test's end waits, when it is recorded, for answers that are still being stored."""
_UNUSED = "llmcache_unused"
_SECTION = "llmcache: calls without a recorded answer"
_deck_of = pytest.StashKey["Deck"]()
_has_passed = pytest.StashKey[bool]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("llmcache", "recorded answers of LLMs (llmcache-plugins)")
    group.addoption(
        "--llmcache",
        choices=_WAYS,
        help="record: serve recorded answers, ask the provider for others and record them. replay: the same,"
        " but record nothing. strict: call no provider; a call without a recorded answer raises CacheMiss."
        " off (the default): nothing of all that",
    )
    group.addoption(
        "--llmcache-rewrite",
        action="store_true",
        help="with --llmcache=record: ask for every answer anew, and drop those that no test asks for",
    )
    group.addoption(
        "--llmcache-unused",
        action="store_true",
        help="with --llmcache=replay or strict: list recorded answers that their tests did not ask for",
    )
    parser.addini("llmcache", "the way of --llmcache when it is not given", default="off")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> Generator[None, Any, Any]:
    """Begin before any conftest.py is imported: it may make a cache."""
    _begin(early_config)
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begin, where that was not possible earlier."""
    config.addinivalue_line("markers", f"{_OFF}: as if --llmcache were not given, for tests with fake models")
    _begin(config)


def _begin(config: pytest.Config) -> None:
    given = getattr(config.known_args_namespace, "llmcache", None)
    way = config.getini("llmcache") if given is None else given
    if way not in _WAYS:
        raise pytest.UsageError(f"llmcache is one of {', '.join(_WAYS)}, not {way!r}")
    rewrites = bool(getattr(config.known_args_namespace, "llmcache_rewrite", False))
    if rewrites and way != "record":
        raise pytest.UsageError("--llmcache-rewrite goes with --llmcache=record")
    if way == "off" or config.pluginmanager.has_plugin(_NAME):
        return
    from llmcache_plugins.testing.recording.deck import Way
    from llmcache_plugins.testing.recording.session import Recording

    recording = Recording(Way(way), rewrites=rewrites)
    config.pluginmanager.register(_Session(config, recording), _NAME)


class _Session:
    """The hooks of a session that asks for it."""

    def __init__(self, config: pytest.Config, recording: Recording) -> None:
        self._config = config
        self._recording = recording
        self._decks = recording.decks
        recording.begin()

    def pytest_report_header(self) -> str:
        return f"llmcache: {self._decks.way}"

    # No wrapper: who tears down what others have set up must find that done, though this may raise.
    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        if item.get_closest_marker(_OFF) is not None:
            self._recording.end()
            return
        self._recording.arrange()
        path = item.path.parent / "cassettes" / item.path.stem / f"{_file_name(item)}.json"
        deck = item.stash[_deck_of] = self._decks.open(path, shown=self._shown(path))
        self._decks.turn_to(deck)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, Any, Any]:
        deck = item.stash.get(_deck_of, None)
        if deck is None or self._decks.way != "record":
            return (yield)
        test = getattr(item, "obj", None)
        if inspect.iscoroutinefunction(test):
            # Before its event loop is closed, and with it what still was to be stored.
            item.obj = _patient(test, deck)  # type: ignore[attr-defined]
        result = yield
        deck.wait(_PATIENCE)
        return result

    @pytest.hookimpl(wrapper=True, trylast=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, Any, Any]:
        try:
            result = yield
        finally:
            if item.get_closest_marker(_OFF) is not None:
                self._recording.end()  # done already, unless something else was in the way of its setup
                self._recording.begin()
            self._decks.turn_to(None)
            deck = item.stash.get(_deck_of, None)
            if deck is not None:
                self._decks.save(deck, passed=item.stash.get(_has_passed, False))
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(
        self, fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
    ) -> Generator[None, Any, Any]:
        # What is set up for several tests must not depend on which of them runs first.
        path = None if fixturedef.scope == "function" else self._path_of(fixturedef)
        if path is None:
            return (yield)
        deck = self._decks.open(path, shown=self._shown(path), is_shared=True)
        with self._decks.turned_to(deck):
            result = yield
        self._decks.save(deck)
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        deck = item.stash.get(_deck_of, None)
        if deck is None:
            return report
        if report.when == "call":
            item.stash[_has_passed] = report.passed
        if report.failed and deck.missed:
            report.sections.append((_SECTION, "\n".join(dict.fromkeys(deck.missed))))
        if report.when == "teardown" and item.stash.get(_has_passed, False) and self._wants_unused:
            # Goes to the controller with the report.
            setattr(report, _UNUSED, {deck.shown: deck.unused()})
        return report

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if not self._wants_unused:
            return
        reports = [one for of_kind in terminalreporter.stats.values() for one in of_kind]
        unused: dict[str, list[str]] = {}
        for report in reports:
            unused.update(getattr(report, _UNUSED, {}))
        if any(unused.values()):
            terminalreporter.section("llmcache: recorded answers that were not used")
            for shown in sorted(unused):
                for answer in unused[shown]:
                    terminalreporter.line(f"{shown}: {answer}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        from llmcache_plugins.errors import CassetteError

        try:
            self._decks.close()
        except CassetteError as error:
            raise pytest.UsageError(str(error)) from error

    def pytest_unconfigure(self) -> None:
        self._recording.end()

    @property
    def _wants_unused(self) -> bool:
        return bool(self._config.getoption("llmcache_unused")) and self._decks.way != "record"

    def _shown(self, path: Path) -> str:
        try:
            return path.relative_to(self._config.rootpath).as_posix()
        except ValueError:
            return str(path)

    def _path_of(self, fixturedef: pytest.FixtureDef[Any]) -> Path | None:
        """Return the cassette of a fixture that several tests share; None for one from elsewhere."""
        try:
            source = Path(inspect.getfile(inspect.unwrap(fixturedef.func)))
        except TypeError:
            return None
        if not source.is_relative_to(self._config.rootpath) or "site-packages" in source.parts:
            return None
        return source.parent / "cassettes" / source.stem / f"fixture-{fixturedef.argname}.json"


def _patient(test: Callable[..., Any], deck: Deck) -> Callable[..., Any]:
    """Return an asynchronous test that lets those come back who were sent for answers."""

    @functools.wraps(test)
    async def waits(*arguments: Any, **named: Any) -> Any:
        result = await test(*arguments, **named)
        await asyncio.to_thread(deck.wait, _PATIENCE)
        return result

    return waits


def _file_name(item: pytest.Item) -> str:
    """Return the name of a test within its module as a file may be called; no two tests have the same."""
    name = item.nodeid.partition("::")[2].replace("::", ".")
    readable = re.sub(r"[^\w.\-\[\],=]+", "-", name, flags=re.ASCII)[:_LONGEST_NAME]
    if readable == name:
        return name
    return f"{readable}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
