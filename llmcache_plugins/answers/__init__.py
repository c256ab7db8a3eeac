"""How answers become bytes and come back.

Owns the seam that every kind of answer implements, the codec for plain values, and the OpenAI wire
format as plain data (`openai_wire`). Knows no SDK and no framework: codecs for their objects live with
whoever imports them, in `providers` and `adapters`.
"""

from llmcache_plugins.answers._seam import AnswerCodec, StreamCodec
from llmcache_plugins.answers.kinds import Kind
from llmcache_plugins.answers.plain import PlainCodec

__all__ = ["AnswerCodec", "Kind", "PlainCodec", "StreamCodec"]
