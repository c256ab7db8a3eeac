"""The examples, answered from their cassettes: no key, no network, no Redis, no provider.

    pip install pytest "llmcache-plugins[langchain,litellm]" langchain langchain-openai
    pytest --llmcache=strict examples

The answers were recorded with `python tests/record_examples.py`, from the provider that stands in for OpenAI
in the tests. The address of a provider is part of a request's key: it is the same here, but nobody listens.
"""

import re
import runpy
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BASE_URL = "http://127.0.0.1:48123/v1"
OF_A_PROCESS = {"prometheus_metrics"}
"""What it shows is counted in the whole process, and here that is not its own."""
EXAMPLES = sorted(
    path.stem
    for path in HERE.glob("*.py")
    if "\n# Run again" in path.read_text() and path.stem not in OF_A_PROCESS
)
UNCACHED = {
    "langchain_per_model": ("ideas: 0 of 3", "ideas: 3 of 3"),
    "litellm_per_call": ("asked the provider", "hit"),
}
"""What is not cached otherwise, and recorded all the same."""

pytestmark = pytest.mark.filterwarnings("ignore")  # of what the frameworks say of one another


@pytest.fixture(autouse=True)
def _settings(monkeypatch):
    import litellm
    from langchain_core import globals as langchain

    monkeypatch.setenv("OPENAI_BASE_URL", BASE_URL)
    monkeypatch.setenv("OPENAI_API_KEY", "none")  # the SDK wants one
    # What an example sets is not for the next one.
    monkeypatch.setattr(litellm, "cache", litellm.cache)
    monkeypatch.setattr(langchain, "_llm_cache", langchain.get_llm_cache())


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example(name, capsys):
    path = HERE / f"{name}.py"
    comments = "".join(line[2:] for line in path.read_text().splitlines(keepends=True) if line[:2] == "# ")
    _, again = re.split(r"Run again within an? \w+:\s", comments)

    runpy.run_path(str(path), run_name="__main__")

    assert capsys.readouterr().out == again.replace(*UNCACHED.get(name, ("", "")))
