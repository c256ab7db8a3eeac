"""Recorded answers: what a session of tests puts in the place of servers and providers.

    cassette     the file
    deck         the answers of one test, and which deck is the present one's
    repository   a `ResponseRepository` on the present deck
    stand_in     its place in all caches of the process, and on what terms calls are cached there
    imports      what is to be done when a framework has been imported
    langchain    calls of LangChain that ask no cache of ours
    litellm      and of LiteLLM

Nothing here knows of pytest: that is `llmcache_plugins.testing.plugin`.
"""
