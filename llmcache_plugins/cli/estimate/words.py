"""What is said of an estimate: sentences, the line of configuration, amounts as people read them. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from llmcache_plugins.cli.showing import count, money, safe

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmcache_plugins.estimate import Amount, Estimate, LogReader

__all__ = [
    "MECHANISMS",
    "SCENARIOS",
    "best",
    "caution",
    "caveats",
    "findings",
    "headline",
    "length",
    "line",
    "reason",
    "semantic_words",
    "share_of",
    "span_words",
]

MECHANISMS = {
    "exact": "exact match",
    "normalized": "+ normalized keys",
    "single_flight": "+ single-flight",
}
SCENARIOS = {
    "realtime": "answers must be of this moment",
    "chat": "conversations and questions of users",
    "static_faq": "texts that rarely change",
    "batch": "the same inputs, run again",
}
_UNITS = ((86_400.0, "day", "days"), (3_600.0, "hour", "hours"), (60.0, "minute", "minutes"))


def length(seconds: float) -> str:
    """Return a span of time in words."""
    for unit, one, many in _UNITS:
        if seconds >= unit:
            number = round(seconds / unit, 1)
            if number == 1:
                return f"1 {one}"
            return f"{number:,.0f} {many}" if number >= 10 or number == int(number) else f"{number} {many}"
    return f"{seconds:.3g} seconds"


def share_of(part: Amount, whole: Amount) -> float:
    """Return a part of all calls, from 0 to 1."""
    return part.calls / whole.calls if whole.calls else 0.0


def line(estimate: Estimate) -> str | None:
    """Return the one line of configuration, as Python; None where nothing would be saved."""
    if estimate.recommended is None:
        return None
    settings = [f'policy="{estimate.recommended}"']
    if estimate.normalizers:
        rules = ", ".join(f'"{rule}"' for rule in estimate.normalizers)
        settings.append(f"normalizers=[{rules}]")
    if estimate.recommended == "chat" and estimate.semantic is not None and estimate.semantic.hits:
        error = f"{estimate.semantic.target_error:g}"
        settings.append(f"semantic=SemanticCacheLayer(target_error={error})")
    return f"ResponseCache.from_url(url, {', '.join(settings)})"


def best(estimate: Estimate) -> Amount:
    """Return what the recommended scenario avoids, else what the policy does."""
    name = estimate.recommended
    return estimate.avoided if name is None else estimate.scenario(name).avoided


def headline(estimate: Estimate) -> str:
    """Return the money first."""
    total, avoided = estimate.total, best(estimate)
    calls = f"{avoided.calls:,} of {count(total.calls, 'call', 'calls')}"
    if estimate.recommended is None:
        return f"A cache would have saved nothing of {count(total.calls, 'call', 'calls')}: none came again."
    if avoided.cost is None or total.cost is None:
        return f"A cache as recommended below would have saved {calls}; what they cost is not known."
    part = f" ({avoided.nano_usd / total.nano_usd:.0%})" if total.nano_usd and not total.unpriced else ""
    saved = f"{money(avoided.cost)} of {money(total.cost)}{part}"
    return f"A cache as recommended below would have saved {saved}: {calls}."


def findings(estimate: Estimate, reader: LogReader) -> Iterator[str]:
    """Yield what else is to be known first."""
    avoided = best(estimate)
    if avoided.calls > avoided.unmetered:
        yield (
            f"{count(avoided.total_tokens, 'token', 'tokens')} would not have been bought again:"
            f" {avoided.input_tokens:,} in, {avoided.output_tokens:,} out."
        )
    yield span_words(estimate, reader)


def span_words(estimate: Estimate, reader: LogReader) -> str:
    """Return what the log is."""
    calls = count(reader.calls, "call", "calls")
    if estimate.first is None:
        return f"The log has {calls}, and does not say when they were made."
    begin, end = (
        datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%d %H:%M")
        for moment in (estimate.first, estimate.last or estimate.first)
    )
    return f"The log has {calls} from {begin} to {end} (UTC), {length(estimate.span)}."


def reason(estimate: Estimate) -> str:
    """Return why this scenario."""
    name = estimate.recommended
    if name is None:
        return "No scenario would have saved anything."
    chosen, longest = estimate.scenario(name), estimate.scenarios[-1]
    by_money = longest.avoided.nano_usd > 0
    said, most = (
        (money(one.avoided.cost) if by_money else count(one.avoided.calls, "call", "calls"))
        for one in (chosen, longest)
    )
    if chosen is longest:
        shorter = estimate.scenarios[-2]
        less = money(shorter.avoided.cost) if by_money else count(shorter.avoided.calls, "call", "calls")
        return (
            f"{name}: {said} with answers of up to {length(chosen.ttl)}, where {shorter.name} with"
            f" {length(shorter.ttl)} would have saved {less}."
        )
    if said == most:
        return (
            f"{name}: {said}, as much as a TTL of {length(longest.ttl)} would have saved, with answers of up"
            f" to {length(chosen.ttl)}."
        )
    return (
        f"{name}: {said} of the {most} that the longest TTL would have saved, with answers of up to"
        f" {length(chosen.ttl)} instead of {length(longest.ttl)}."
    )


def caution(estimate: Estimate) -> str:
    """Return what the recommended scenario risks."""
    if estimate.recommended is None:
        return ""
    ages = estimate.scenario(estimate.recommended).ages
    if not ages.hits:
        return "Nothing stored was given out: only calls that overlapped shared one."
    return (
        f"The risk: in this log the answers given out would have been {length(ages.mean)} old on average, the"
        f" oldest {length(ages.oldest)}. What changes sooner needs a shorter TTL, or tags and invalidate()."
    )


def semantic_words(estimate: Estimate) -> Iterator[str]:
    """Yield what is said of equivalent questions."""
    found = estimate.semantic
    if found is None:
        return
    if not found.calls or found.share is None:
        yield "Equivalent questions: the sample has none to compare."
        return
    gain = found.added
    worth = "" if gain.cost is None or not gain.calls else f", {money(gain.cost)}"
    sample = count(found.texts, "different question", "different questions")
    yield (
        f"Equivalent questions, an estimate from the first {sample} of the log: of {found.calls:,} calls that"
        f" nothing else avoids {found.fewer:,} more would not have reached the provider ({found.share:.1%};"
        f" between {found.lowest:.1%} and {found.highest:.1%})."
    )
    yield (
        f"Of the whole log, with a TTL of {length(estimate.ttl)}, that would be"
        f" {count(gain.calls, 'call', 'calls')} more{worth}. Of such answers up to {found.target_error:.1%}"
        f" would be wrong: the threshold is a similarity of {found.threshold:g}, by the calibration that"
        " comes with the default embedder. More questions find more neighbours; begin with shadow=True."
    )


def caveats(estimate: Estimate, reader: LogReader) -> Iterator[str]:
    """Yield what the figures rest on, and what is not in them."""
    total = estimate.total
    if reader.bad:
        some = ", ".join(f"line {bad.line}: {bad.reason}" for bad in reader.named[:3])
        more = f", and {reader.bad - 3:,} more" if reader.bad > 3 else ""
        yield f"{count(reader.bad, 'line', 'lines')} could not be read: {some}{more}."
    for why, number in sorted(reader.left_out.items()):
        yield f"{count(number, 'line', 'lines')} left out: {why}."
    for what, number in sorted(reader.guesses.items()):
        yield f"Guessed in {count(number, 'line', 'lines')}: {what}."
    if estimate.undated:
        yield (
            f"{count(estimate.undated, 'call does', 'calls do')} not say when: taken as asked right after the"
            " line before, one at a time. TTLs and overlaps cannot be told of them; --map timestamp=PATH."
        )
    if estimate.untimed:
        yield (
            f"How long {count(estimate.untimed, 'call', 'calls')} took is not said: taken as"
            f" {estimate.latency:g} s (--latency). Single-flight rests on it."
        )
    if estimate.guessed:
        yield (
            f"The tokens of {count(estimate.guessed, 'call', 'calls')} are a guess from the length of texts,"
            " 4 characters each; without the answer's text there is no output in it."
        )
    if total.unmetered:
        yield (
            f"The tokens of {count(total.unmetered, 'call', 'calls')} are not known: not in tokens and money"
            " (--map usage=PATH, --guess-tokens)."
        )
    if unpriced := total.unpriced - total.unmetered:
        models = ", ".join(map(safe, estimate.unpriced_models))
        yield (
            f"The price of {count(unpriced, 'call', 'calls')} is not known: not in the money (--price"
            f" MODEL=IN,OUT, for {models or 'requests that name their model'})."
        )
    if estimate.never_cached:
        yield (
            f"{count(estimate.never_cached, 'call has', 'calls have')} no canonical form: such requests are"
            " never cached."
        )
    if estimate.not_stored:
        yield (
            f"{count(estimate.not_stored, 'answer', 'answers')} would not have been stored: truncated,"
            " filtered, or without a choice."
        )
    if estimate.span and estimate.span < estimate.scenarios[-1].ttl:
        yield f"The log spans {length(estimate.span)}: what a longer TTL would save, it cannot say."
    if estimate.rules:
        yield "What is stripped no longer tells two questions apart: see docs/normalizers.md first."
