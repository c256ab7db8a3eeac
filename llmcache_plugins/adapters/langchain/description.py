"""What a chat model is asked, from its objects: one canonical request, the same for all their spellings.

Unlike `keys`, which reads LangChain's strings, it sees the arguments themselves: classes count by their
schema, and each setting by the value it has now. What has no description, such as a function among a model's
settings, stays what it is: `compute_signature` refuses it and says where it is.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, SecretBytes, SecretStr

from llmcache_plugins.adapters.langchain.normal import (
    CONNECTIONS,
    DELIVERY,
    MACHINERY,
    normal_message,
    significant,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from langchain_core.language_models import BaseChatModel
    from langchain_core.messages import BaseMessage
    from pydantic.fields import FieldInfo

__all__ = ["described", "keeps_state_elsewhere"]

# `profile`: what is publicly known of the model (langchain-core 1.x).
# `custom_get_token_ids`: counts, and is not sent.
_UNSENT = DELIVERY | MACHINERY | CONNECTIONS | {"custom_get_token_ids", "profile"}
_STATE = ("reuse_last_container", "use_previous_response_id")
# Of a client, which the environment may have told where to go.
_WHERE = ("base_url", "organization", "project")
_DEEPEST = 100
"""What is deeper, or contains itself, `compute_signature` refuses."""
_PLAIN = (str, int, float, bool, dict, list, tuple, type(None))


def described(
    model: BaseChatModel,
    messages: Iterable[BaseMessage],
    arguments: Mapping[str, Any],
    *,
    kind: type[BaseChatModel],
) -> dict[str, object]:
    """Return the request for `CacheSignatureEngine.compute_signature`. It contains the prompt: never log it.

    Equal for everything that cannot change the answer. `kind` is the class of the model as its application
    knows it; `arguments` are those of the call. Parts of it belong to the model and the messages: do not
    change it.
    """
    return {
        "messages": [_message(message) for message in messages],
        "model": {"class": _name_of(kind), "settings": _settings(model)},
        "arguments": _told(significant(arguments, DELIVERY)),
    }


def keeps_state_elsewhere(model: BaseChatModel, arguments: Mapping[str, Any]) -> bool:
    """Say whether the answer depends on what the provider was asked before."""
    return any(arguments.get(name, getattr(model, name, None)) is True for name in _STATE)


def _message(message: BaseMessage) -> dict[str, Any]:
    kind = type(message)
    is_known = kind.__module__.startswith("langchain_core.messages.")
    fields = {**vars(message), **(message.model_extra or {})}
    return normal_message(kind.__name__ if is_known else _name_of(kind), fields)


def _settings(model: BaseChatModel) -> dict[str, Any]:
    fields, secrets = type(model).model_fields, model.lc_secrets
    settings = {
        name: _told(value)
        for name, field in fields.items()
        if name not in _UNSENT
        and name not in secrets
        # Not the properties of a class: what the model was made with, and what it was changed to.
        and (value := model.__dict__.get(name)) is not None
        and not _only_connects(field, value)
    }
    places = {name: _place_of(model.__dict__.get(name)) for name in fields if fields[name].exclude}
    return significant({**settings, **{name: place for name, place in places.items() if place}}, frozenset())


def _only_connects(field: FieldInfo, value: Any) -> bool:
    """Say whether a value is an object that no model of LangChain writes down: a client, a token's source."""
    if isinstance(value, SecretStr | SecretBytes):
        return True
    # A function may choose anything.
    return bool(field.exclude) and not isinstance(value, _PLAIN) and not inspect.isroutine(value)


def _place_of(client: Any) -> dict[str, str]:
    if client is None or isinstance(client, _PLAIN):
        return {}
    values = {name: getattr(client, name, None) for name in _WHERE}
    return {name: str(value) for name, value in values.items() if value}


def _told(value: Any, depth: int = 0) -> Any:
    """Return a value with the schema of each class in its place."""
    if depth > _DEEPEST:
        return value
    if isinstance(value, dict):
        return {name: _told(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_told(inner, depth + 1) for inner in value]
    if isinstance(value, type) and issubclass(value, BaseModel):
        return {"schema": _schema_of(value)}
    return value


@lru_cache(maxsize=256)
def _schema_of(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema()


def _name_of(kind: type[Any]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
