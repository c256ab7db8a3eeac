"""Settings and URLs: what cannot work is refused at once, with words, and without the password."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from llmcache_plugins import CacheConfig, ConfigError, LLMCacheError, ResponseCache, ResponseRepository
from llmcache_plugins.config import CacheSettings
from llmcache_plugins.repository.urls import parse_url, redact


def test_every_field_of_the_configuration_is_a_keyword_of_from_url():
    assert set(CacheSettings.__annotations__) == {f.name for f in dataclasses.fields(CacheConfig)}


def test_the_timings_are_derived_unless_given():
    config = CacheConfig(lease_ttl=9, max_lead=60)
    assert config.renew_every == 3
    assert config.follow_for == 69
    assert CacheConfig(wait_timeout=1).follow_for == 1


@pytest.mark.parametrize(
    "wrong",
    [
        {"namespace": ""},
        {"namespace": None},
        {"prefix": ""},
        {"lookup_budget": 0},
        {"lookup_budget": "0.05"},
        {"lookup_budget": float("inf")},
        {"lease_ttl": 0.001},
        {"lease_ttl": 100, "max_lead": 10},
        {"wait_timeout": -1},
        {"on_abandon": "ignore"},
        {"max_entries": 0},
        {"max_entries": True},
        {"max_bytes": -5},
        {"max_entry_bytes": 10**9},
        {"compress_from": -1},
        {"secret": ""},
        {"normalizers": ["uid"]},
        {"normalizers": "uuid"},
        {"normalizer_limit": 0},
        {"normalizer_timeout": -1},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]):
    with pytest.raises(ConfigError) as raised:
        ResponseCache.from_url("redis://localhost", **wrong)
    assert isinstance(raised.value, LLMCacheError)
    assert next(iter(wrong)) in str(raised.value)


def test_a_typo_is_an_error_and_not_silently_ignored():
    with pytest.raises(TypeError, match="nmespace"):
        ResponseCache.from_url("redis://localhost", nmespace="x")  # type: ignore[call-arg]


def test_the_secret_is_not_in_the_repr():
    assert "hush" not in repr(CacheConfig(secret="hush"))


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        (None, "embedded"),
        ("", "embedded"),
        ("embedded://", "embedded"),
        ("embedded:///var/cache/x", "embedded"),
        ("redis://localhost", "server"),
        ("rediss://user:p%40ss@host:6380/2", "server"),
        ("REDIS://host", "server"),
        ("unix:///run/redis.sock?db=1", "server"),
        ("redis+cluster://node:7000", "cluster"),
        ("rediss+cluster://node:7000", "cluster"),
        ("redis://[::1]:6379/0", "server"),
    ],
)
def test_urls(url: str | None, kind: str):
    assert parse_url(url).kind == kind


def test_an_embedded_url_names_a_directory():
    assert parse_url("embedded:///var/cache/x").directory == Path("/var/cache/x")
    assert parse_url("embedded://cache").directory == Path("cache")
    assert parse_url("embedded://~/x").directory == Path("~/x").expanduser()


@pytest.mark.parametrize(
    "url",
    [
        "localhost:6379",
        "http://user:hunter2@host",
        "redis://user:hunter2@host:port",
        "redis://user:hunter2@host:0",
        "redis://user:hunter2@host:99999",
        "redis://user:hun/ter2@host:6379",
        "redis://user:hunter2#x@host:6379",
        "redis://user:hunter2@host/first",
        "redis+cluster://user:hunter2@host/3",
        "unix://",
        "redis://user:hunter2@host?socket_timeout=hunter2",
        7,
    ],
)
def test_a_url_that_cannot_work_is_named_without_its_password(url: Any):
    with pytest.raises(ConfigError) as raised:
        ResponseRepository(url)
    text = f"{raised.value} {raised.value.__cause__ or ''}"
    assert "hunter2" not in text
    assert "ter2" not in text


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:p@ss@host:1/0?password=x", "redis://host:1/0"),
        ("rediss://:secret@host", "rediss://host"),
        ("nonsense", "..."),
        ("", ""),
    ],
)
def test_a_shown_url_has_no_credentials(url: str, shown: str):
    assert redact(url) == shown


def test_a_url_and_a_client_together_are_refused():
    with pytest.raises(ConfigError, match="not both"):
        ResponseRepository("redis://localhost", client=object())
