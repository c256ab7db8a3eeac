"""The rule `url`: a web address without the parameters that only say where a reader came from."""

from __future__ import annotations

import re

from llmcache_plugins.normalize.windows import replaced

__all__ = ["untracked"]

_LONGEST = 4096
# The characters of a URL as RFC 3986 has them, without those that often stand round one; and placeholders.
# The match takes whatever follows, so that no character is looked at twice.
_URL = re.compile(
    rf"[hH][tT][tT][pP][sS]?://[\w!#$%&*+,./:;=?@~\ufdd0-\ufdef\[\]-]{{1,{_LONGEST}}}", re.ASCII
)
_PUNCTUATION = ".,;:!?]*_"
# What such services write. A value with anything else may have more than the value in it: all of it stays.
_VALUE = re.compile(r"[\w%.~+*:=\ufdd0-\ufdef-]*", re.ASCII)

_TRACKING = frozenset(
    {
        "__hsfp", "__hssc", "__hstc", "_ga", "_gl", "_hsenc", "_hsmi", "dclid", "epik", "fbclid", "gbraid",
        "gclid", "gclsrc", "hsctatracking", "igsh", "igshid", "li_fat_id", "mc_cid", "mc_eid", "mkt_tok",
        "msclkid", "oly_anon_id", "oly_enc_id", "rb_clickid", "srsltid", "ttclid", "twclid", "vero_id",
        "wbraid", "wickedid", "yclid", "ysclid",
    }
)  # fmt: skip
"""Identifiers of advertising and mail services, in lower case; and all that begin `utm_`."""


def untracked(text: str) -> tuple[str, int]:
    """Drop the tracking parameters of `http` and `https` URLs (`utm_...`, `gclid`, `fbclid`, ...).

    The other parameters stay, in their order and spelling, and so does the fragment. A URL of more than 4,096
    characters stays as it is. Returns the text and how many parameters were dropped.
    """
    if "://" not in text or "?" not in text:
        return text, 0
    dropped = 0

    def clean(found: re.Match[str]) -> str:
        nonlocal dropped
        url, count = _without_tracking(found[0])
        dropped += count
        return url

    return replaced(_URL, clean, text, longest=_LONGEST + 16)[0], dropped


def _without_tracking(written: str) -> tuple[str, int]:
    address, mark, rest = written.partition("?")
    if not mark or len(written) >= _LONGEST:
        return written, 0
    url = rest.rstrip(_PUNCTUATION)
    query, hash_mark, fragment = url.partition("#")
    said = re.split("&amp;|&", query)
    separator = "&amp;" if "&amp;" in query else "&"
    kept = [parameter for parameter in said if not _is_tracking(parameter)]
    if len(kept) == len(said):
        return written, 0
    asked = mark + separator.join(kept) if kept else ""
    return f"{address}{asked}{hash_mark}{fragment}{rest[len(url) :]}", len(said) - len(kept)


def _is_tracking(parameter: str) -> bool:
    name, _, value = parameter.partition("=")
    name = name.lower()
    return (name.startswith("utm_") or name in _TRACKING) and _VALUE.fullmatch(value) is not None
