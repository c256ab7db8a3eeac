"""Where vectors come from. Each satisfies `Embedder`; `Embedding` checks and shares what they give."""

from llmcache_plugins.semantic.embedders.langchain import LangChainEmbedder
from llmcache_plugins.semantic.embedders.minilm import MiniLMEmbedder
from llmcache_plugins.semantic.embedders.openai import OpenAIEmbedder
from llmcache_plugins.semantic.embedders.seam import Embedder

__all__ = ["Embedder", "LangChainEmbedder", "MiniLMEmbedder", "OpenAIEmbedder"]
