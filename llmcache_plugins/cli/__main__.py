"""`python -m llmcache_plugins.cli`: the command where its script is not on the PATH."""

from llmcache_plugins.cli import main

if __name__ == "__main__":
    main()
