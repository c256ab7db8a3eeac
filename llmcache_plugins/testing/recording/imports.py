"""What is to be done when a module has been imported.

For frameworks that take seconds to import, and that most sessions of tests do not use.
"""

from __future__ import annotations

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

__all__ = ["AfterImport"]


class AfterImport(MetaPathFinder):
    """Calls `then` whenever one of some modules has been executed; `close` ends it."""

    def __init__(self, names: Iterable[str], then: Callable[[str], None]) -> None:
        self._names = frozenset(names)
        self._then = then
        self._looking: set[str] = set()
        self._done: set[str] = set()
        sys.meta_path.insert(0, self)

    def close(self) -> None:
        """Do nothing any more."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def is_done(self, name: str) -> bool:
        """Say whether a module has been imported, and not only begun to be."""
        module = sys.modules.get(name)
        if module is None:
            return False
        return name in self._done or not getattr(module.__spec__, "_initializing", False)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return what the other finders say, with a loader that tells."""
        if fullname not in self._names or fullname in self._looking:
            return None
        self._looking.add(fullname)
        try:
            spec = find_spec(fullname)
        finally:
            self._looking.discard(fullname)
        if spec is not None and spec.loader is not None:
            spec.loader = _Telling(spec.loader, self._tell)
        return spec

    def _tell(self, name: str) -> None:
        self._done.add(name)
        self._then(name)


class _Telling(Loader):
    """A loader that tells when it is done; otherwise the one it has."""

    def __init__(self, loader: Loader, then: Callable[[str], None]) -> None:
        self._loader = loader
        self._then = then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if (spec := module.__spec__) is not None:
            # Resources and reloads ask the one who knows.
            spec.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        self._then(module.__name__)
