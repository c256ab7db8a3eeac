"""What a policy is shown of a call: one flat body, as a provider's interface would have it.

Whichever way LangChain has described the model, its settings and those of the call lie beside the messages.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["shown"]

_NAMES = ("model", "model_name", "model_id", "deployment_name")


def shown(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body for a request of `keys` or `description`; `model` is a name, if there is one.

    Parts of it belong to the request: do not change it.
    """
    model = _dict(request.get("model"))
    flat = {
        **_dict(model.get("kwargs")),
        **_dict(model.get("settings")),
        **_dict(request.get("settings")),
        **_dict(request.get("arguments")),
    }
    name = next((flat[key] for key in _NAMES if isinstance(flat.get(key), str)), None)
    asked = {key: request[key] for key in ("messages", "prompt") if key in request}
    return {**flat, **asked, **({} if name is None else {"model": name})}


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
