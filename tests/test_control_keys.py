"""Control keys may vanish at any moment: an eviction, a restart, a fail-over. Answers never become wrong.

A random walk over everything a repository does, while marks, epochs, logs, sums and leases are deleted at
random. A model knows which answers an invalidation has voided. What may happen is a miss; what may not is a
stale answer, somebody else's answer, or a key that lives for ever. A failure names its seed and its steps.
"""

from __future__ import annotations

import asyncio
import collections
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import redis.asyncio as aioredis
from entries import answer_in, entry_of, key_of
from redis.asyncio.cluster import RedisCluster

from llmcache_plugins import CacheConfig, ResponseRepository
from llmcache_plugins.models import Absent, Found, Lease, Provenance, Wait, WriteStatus
from llmcache_plugins.repository import invalidating, new_token
from llmcache_plugins.semantic.indexes import NumpyIndex, numpy_index

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from servers import Cluster, Server

NAMES = [f"key {number}" for number in range(5)]
TAGS = [f"tag {number}" for number in range(12)]
MODELS = ["large", "small"]
SCOPES = ["a" * 64, "b" * 64]
CONTROL_KEYS = ("marks", "epoch", "log", "size", "vectors", "lease")
STEPS = 4000
SEEDS = (1, 2)


@dataclass
class Flight:
    """A lease somebody holds, and the invalidation its key had seen when it was taken."""

    name: str
    lease: Lease
    answer: str


@dataclass
class Model:
    """What is known for certain: how often each key, tag and model was invalidated, and which answers belong
    to when.

    Time is counted in invalidations: an answer may be served as long as the generations of all it was made
    from are those in which its flight began.
    """

    generations: collections.Counter[str] = field(default_factory=collections.Counter)
    made_in: dict[str, tuple[str, Provenance, dict[str, int]]] = field(default_factory=dict)
    answers: int = 0

    def new_answer(self, name: str, provenance: Provenance) -> str:
        self.answers += 1
        answer = f"answer {self.answers} to {name}"
        about = [name, *provenance.tags, *([provenance.model] if provenance.model else [])]
        self.made_in[answer] = (name, provenance, {subject: self.generations[subject] for subject in about})
        return answer

    def invalidate(self, *subjects: str) -> None:
        for subject in subjects:
            self.generations[subject] += 1

    def is_current(self, answer: str) -> bool:
        return all(self.generations[s] == then for s, then in self.made_in[answer][2].items())

    def check(self, name: str, answer: Any) -> None:
        asked, _, then = self.made_in[answer]
        assert asked == name, f"{name} was answered with {answer!r}"
        assert self.is_current(answer), f"{answer!r} was made in {then}, now it is {self.generations}: stale"


class Walk:
    """One random walk on one server. Steps follow one another: each sees all that came before."""

    def __init__(self, *, server: Server | Cluster, namespace: str, seed: int) -> None:
        self.namespace = namespace
        self.random = random.Random(seed)
        self.model = Model()
        self.flights: list[Flight] = []
        self.ended: list[Flight] = []
        self.late: list[tuple[str, str, float]] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self.steps: list[str] = []
        self.attached = NAMES[0]
        is_cluster = len(server.nodes) > 1
        url = server.url.removeprefix("redis+cluster://")
        self.raw: Any = (
            RedisCluster.from_url(f"redis://{url}") if is_cluster else aioredis.Redis.from_url(server.url)
        )
        config = CacheConfig(namespace=namespace, socket_timeout=5.0)
        # Two of them, as two processes would be: neither may rely on what it remembers.
        self.repositories = [ResponseRepository(server.url, config=config) for _ in range(2)]
        self.indexes = [
            NumpyIndex(repository.vectors, embedder="walk", dim=len(NAMES))
            for repository in self.repositories
        ]
        self.choices: dict[Callable[[], Awaitable[None]], int] = {
            self.fetch: 30,
            self.acquire: 14,
            self.acquire_after_a_look: 8,
            self.commit: 14,
            self.commit_again: 4,
            self.persist: 4,
            self.call_without_a_lease: 4,
            self.get_its_lease_late: 4,
            self.renew: 4,
            self.fail: 2,
            self.delete: 3,
            self.invalidate_tags: 3,
            self.invalidate_a_model: 1,
            self.clear: 1,
            self.clear_cut_short: 1,
            self.expire: 2,
            self.lose_a_control_key: 9,
            self.lose_a_lease: 3,
            self.lose_everything_but_entries: 1,
            self.evict: 1,
            self.touch: 1,
            self.attach: 24,
            self.find: 16,
            self.lose_a_vector: 3,
        }

    @property
    def repository(self) -> ResponseRepository:
        return self.random.choice(self.repositories)

    def root(self) -> str:
        """Return what the keys of one of the buckets in use begin with."""
        entry = self.repository.redis_key(self.key(self.name()))
        return entry[: entry.index("}:") + 2]

    async def run(self, steps: int) -> None:
        actions, weights = zip(*self.choices.items(), strict=True)
        for action in self.random.choices(actions, weights, k=steps):
            self.steps.append(action.__name__)
            await action()
            if len(self.steps) % 20 == 0:
                await self.check_ttls()
        await self.check_ttls()
        for name in NAMES:
            await self.look(name)

    async def close(self) -> None:
        for index in self.indexes:
            await index.aclose()
        for repository in self.repositories:
            await repository.aclose()
        await self.raw.aclose()

    # -- what may be served ----------------------------------------------------------------------------

    def name(self) -> str:
        return self.random.choice(NAMES)

    def new_answer(self, name: str) -> str:
        """Some answers are made from documents, some by a model, some from nothing that is known."""
        tags = self.random.sample(TAGS, k=self.random.choice([0, 1, 3]))
        model = self.random.choice([*MODELS, None])
        return self.model.new_answer(name, Provenance(model=model, tags=tuple(tags)))

    def key(self, name: str) -> Any:
        return key_of(name, namespace=self.namespace)

    async def look(self, name: str) -> None:
        found = await self.repository.fetch(self.key(name))
        self.counts["hits" if found else "misses"] += 1
        if found is not None:
            self.model.check(name, answer_in(found))

    async def fetch(self) -> None:
        await self.look(self.name())

    async def acquire(self, seen: str = "", name: str = "") -> None:
        name = name or self.name()
        mode = self.random.choice(["lead", "lead", "lead", "fence", "refresh"])
        answer = self.new_answer(name)
        reply = await self.repository.leases.acquire(
            self.key(name),
            token=new_token(),
            mode=mode,  # type: ignore[arg-type]
            seen=seen,
            provenance=self.model.made_in[answer][1],
        )
        if isinstance(reply, Found):
            self.counts["hits on acquire"] += 1
            self.model.check(name, answer_in(reply))
        elif isinstance(reply, Lease):
            self.counts["leads"] += 1
            if reply.provenance == self.model.made_in[answer][1]:
                self.flights.append(Flight(name, reply, answer))
        elif not isinstance(reply, Absent):
            assert isinstance(reply, Wait)
            assert 0 <= reply.seconds <= 10

    async def acquire_after_a_look(self) -> None:
        name = self.name()
        found = await self.repository.look_up(self.key(name))
        if isinstance(found, Found):
            self.model.check(name, answer_in(found))
        else:
            await self.acquire(seen=found.seen, name=name)

    # -- what is written -------------------------------------------------------------------------------

    async def commit(self) -> None:
        if not self.flights:
            return
        flight = self.flights.pop(self.random.randrange(len(self.flights)))
        await self._commit(flight)
        self.ended = [*self.ended[-20:], flight]

    async def commit_again(self) -> None:
        """Frameworks write twice, and a client repeats what it has no reply to: at once or much later."""
        if self.ended:
            await self._commit(self.random.choice(self.ended))

    async def _commit(self, flight: Flight) -> None:
        entry = self.repository.redis_key(self.key(flight.name))
        before = await self.raw.getrange(entry, 16, 31)
        commit = await self.repository.leases.commit(
            self.key(flight.name),
            entry_of(flight.answer, provenance=self.model.made_in[flight.answer][1]),
            ttl=self.random.choice([60, 4000]),
            lease=flight.lease,
        )
        self.counts[str(commit.status)] += 1
        assert commit.status is not WriteStatus.ERR, commit.detail
        if commit.status is WriteStatus.OK:
            assert self.model.is_current(flight.answer), f"stale {flight.answer} stored"
            assert before <= await self.raw.getrange(entry, 16, 31), "an older answer replaced a newer one"

    async def persist(self) -> None:
        name = self.name()
        answer = self.new_answer(name)
        entry = entry_of(answer, provenance=self.model.made_in[answer][1])
        commit = await self.repository.persist(self.key(name), entry, ttl=60)
        assert commit.status is WriteStatus.OK

    async def call_without_a_lease(self) -> None:
        """The server did not answer in time: the provider is called, the lease may come later."""
        name = self.name()
        self.late.append((name, self.new_answer(name), time.monotonic()))

    async def get_its_lease_late(self) -> None:
        if not self.late:
            return
        name, answer, called_at = self.late.pop(0)
        reply = await self.repository.leases.acquire(
            self.key(name),
            token=new_token(),
            mode="fence",
            seen="*",
            provenance=self.model.made_in[answer][1],
        )
        assert isinstance(reply, Lease)
        lease = reply.backdated(time.monotonic() - called_at)
        await self._commit(Flight(name, lease, answer))

    async def renew(self) -> None:
        if self.flights:
            flight = self.random.choice(self.flights)
            await self.repository.leases.renew(self.key(flight.name), flight.lease)

    async def fail(self) -> None:
        if self.flights:
            flight = self.flights.pop(0)
            await self.repository.leases.fail(self.key(flight.name), token=flight.lease.token)

    # -- what is forgotten -----------------------------------------------------------------------------

    async def delete(self) -> None:
        name = self.name()
        await self.repository.delete(self.key(name))
        self.model.invalidate(name)
        await self.look(name)

    async def invalidate_tags(self) -> None:
        tags = self.random.sample(TAGS, k=2)
        done = await self.repository.invalidate(tags=tags)
        self.counts["forgotten"] += done.forgotten
        self.model.invalidate(*tags)
        await self.look(self.name())

    async def invalidate_a_model(self) -> None:
        model = self.random.choice(MODELS)
        await self.repository.invalidate(models=[model])
        self.model.invalidate(model)
        await self.look(self.name())

    async def clear(self) -> None:
        await self.repository.clear()
        self.model.invalidate(*NAMES)
        await self.look(self.name())

    async def clear_cut_short(self) -> None:
        """The process that clears dies before it has removed the entries: they are void all the same."""
        await self.repository.invalidate(everything=True)
        self.model.invalidate(*NAMES)
        await self.look(self.name())

    async def expire(self) -> None:
        await self.raw.unlink(self.repository.redis_key(self.key(self.name())))

    async def evict(self) -> None:
        await self.repository.evict_stale(max_keys=self.random.choice([0, 2, 4]))

    async def touch(self) -> None:
        """What a second of reads is noted with, without the second."""
        repository = self.repository
        await repository._touches(repository._links.current()).flush()

    # -- questions that are near ------------------------------------------------------------------------

    def question(self, name: str) -> tuple[str, Any]:
        """Return scope and vector of the question of a key: two scopes share vectors."""
        number = NAMES.index(name)
        return SCOPES[number % 2], np.eye(len(NAMES))[number // 2]

    async def attach(self) -> None:
        """A question is embedded at once, or long after its answer was stored, replaced or voided."""
        for name in self.random.sample(NAMES, k=len(NAMES)):
            fence = await self.raw.getrange(self.repository.redis_key(self.key(name)), 16, 31)
            if fence:
                break
        scope, vector = self.question(name)
        if self.random.random() < 0.2:
            fence = b"0" * 15 + b"1"
        index = self.random.choice(self.indexes)
        added = await index.add(
            self.key(name), fence=fence.decode(), scope=scope, vector=vector, text=name, canonical=name
        )
        assert added == (len(fence) == 16 and fence != b"0" * 15 + b"1")
        self.counts["attached"] += added
        if added:
            self.attached = name

    async def find(self) -> None:
        name = self.random.choice([self.name(), self.attached])
        scope, vector = self.question(name)
        index = self.random.choice(self.indexes)
        found = await index.nearest(self.namespace, scope, vector, k=5, at_least=0.5)
        assert {one.text for one in found} <= {name}, f"{found} found for {name}"
        same = await index.same_text(self.namespace, scope, name)
        assert same is None or (same.digest, same.text) == (self.key(name).digest, name)
        for one in found:
            assert one.digest == self.key(name).digest
            answer = await self.repository.fetch(self.key(name))
            self.counts["found" if answer else "found in vain"] += 1
            if answer is None:
                await index.forget(self.key(name))
            else:
                self.model.check(name, answer_in(answer))

    # -- what is lost ----------------------------------------------------------------------------------

    async def lose_a_control_key(self) -> None:
        what = self.random.choice(CONTROL_KEYS[:-1])
        self.counts["lost"] += await self.raw.unlink(self.root() + what)

    async def lose_a_lease(self) -> None:
        entry = self.repository.redis_key(self.key(self.name()))
        await self.raw.unlink(entry.replace("}:resp:", "}:lease:"))

    async def lose_a_vector(self) -> None:
        entry = self.repository.redis_key(self.key(self.name()))
        await self.raw.unlink(entry.replace("}:resp:", "}:vec:"))

    async def lose_everything_but_entries(self) -> None:
        root = self.root()
        await self.raw.unlink(*(root + what for what in CONTROL_KEYS[:-1]))

    async def check_ttls(self) -> None:
        keys = await self.raw.keys(f"llm:{{{self.namespace}.*")
        ttls = await asyncio.gather(*(self.raw.pttl(key) for key in keys))
        immortal = [key for key, ttl in zip(keys, ttls, strict=True) if ttl == -1]
        assert not immortal, f"keys that never expire: {immortal}"


@pytest.mark.parametrize(
    ("kind", "seed"), [*((kind, seed) for kind in ("valkey", "redis8") for seed in SEEDS), ("cluster", 1)]
)
async def test_whatever_control_key_is_lost_no_answer_is_stale_wrong_or_kept_for_ever(
    kind: str, seed: int, namespace: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
):
    # So that a walk forgets old marks, too, for room.
    monkeypatch.setattr(invalidating, "MOST_MARKS", 3)
    # So that a mirror is read often, and never late.
    monkeypatch.setattr(numpy_index, "READ_EVERY", 0.01)
    monkeypatch.setattr(numpy_index, "LOOK_OVER_EVERY", 0.05)
    monkeypatch.setattr(numpy_index, "PATIENCE", None)
    walk = Walk(server=request.getfixturevalue(kind), namespace=namespace, seed=seed)
    try:
        await walk.run(STEPS)
    except AssertionError as error:
        pytest.fail(f"{error} (seed {seed}, step {len(walk.steps)}, after {walk.steps[-12:]})")
    finally:
        await walk.close()
    # A walk on which nothing happens proves nothing.
    assert walk.counts["hits"] > STEPS / 100
    assert walk.counts["hits on acquire"] > STEPS / 300
    assert walk.counts["lost"] > STEPS / 100
    assert walk.counts["INVALIDATED"] > 10
    assert walk.counts["OK"] > STEPS / 100
    assert walk.counts["forgotten"] > 10
    assert walk.counts["attached"] > STEPS / 100
    assert walk.counts["found"] > STEPS / 100
    assert walk.counts["found in vain"] > 0


async def test_concurrent_steps_are_as_safe(valkey: Server, namespace: str):
    """Flights, reads and losses at once, one key. An answer is named after the number of deletions that had
    begun when its flight took off: with a lower number than had returned when a read began, it is stale."""
    config = CacheConfig(namespace=namespace, socket_timeout=5.0)
    key = key_of("the key", namespace=namespace)
    deletions = collections.Counter(begun=0, returned=0)
    served = 0
    stop = asyncio.Event()
    rng = random.Random(7)

    async with (
        ResponseRepository(valkey.url, config=config) as one,
        ResponseRepository(valkey.url, config=config) as two,
        aioredis.Redis.from_url(valkey.url) as raw,
    ):

        def check(found: Found, returned: int) -> None:
            nonlocal served
            served += 1
            assert int(str(answer_in(found))) >= returned, "stale"

        async def fly(repository: ResponseRepository) -> None:
            while not stop.is_set():
                returned = deletions["returned"]
                reply = await repository.leases.acquire(key, token=new_token())
                if isinstance(reply, Found):
                    check(reply, returned)
                elif isinstance(reply, Lease):
                    answer = entry_of(str(deletions["begun"]))
                    for _ in range(rng.randrange(4)):
                        await asyncio.sleep(0)
                    await repository.leases.commit(key, answer, ttl=60, lease=reply)
                else:
                    await asyncio.sleep(0)

        async def read(repository: ResponseRepository) -> None:
            while not stop.is_set():
                returned = deletions["returned"]
                found = await repository.fetch(key)
                if found is not None:
                    check(found, returned)

        async def lose() -> None:
            root = f"llm:{{{namespace}.0}}:"
            while not stop.is_set():
                await raw.unlink(root + rng.choice(CONTROL_KEYS[:-1]), f"{root}lease:{key.digest}")
                await asyncio.sleep(0.002)

        async def invalidate() -> None:
            for turn in range(200):
                deletions["begun"] += 1
                await (one.delete(key) if turn % 3 else two.clear())
                deletions["returned"] += 1
                await asyncio.sleep(rng.random() * 0.01)
            stop.set()

        async with asyncio.TaskGroup() as group:
            for repository in (one, two):
                group.create_task(fly(repository))
                group.create_task(read(repository))
            group.create_task(lose())
            group.create_task(invalidate())
    assert served > 100
