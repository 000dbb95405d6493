"""Names to lazily imported objects; refuses duplicates and never guesses."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

from phoneward.errors import DuplicateName, MissingExtra, UnknownName

T = TypeVar("T")


@dataclass(frozen=True)
class Entry:
    """Where a registered object lives and which extra installs what it imports.

    `target` is `"package.module:attribute"`. `packages` are the import names (not the
    distribution names) whose absence means that `extra` is not installed: all of them are needed,
    or with `one_is_enough` any.
    """

    target: str
    extra: str = ""
    packages: tuple[str, ...] = ()
    one_is_enough: bool = False

    def missing(self) -> str | None:
        """Return an import name whose absence matters, or None; imports nothing."""
        absent = [name for name in self.packages if importlib.util.find_spec(name) is None]
        if self.one_is_enough and len(absent) < len(self.packages):
            return None
        return next(iter(absent), None)


class Registry(Generic[T]):
    """A table of names; the module behind a name is imported when the name is first asked for.

    >>> engines = Registry("engine", {"litert": Entry("phoneward.runtime.engines.litert:LiteRT")})
    >>> list(engines)
    ['litert']
    """

    def __init__(self, kind: str, entries: Mapping[str, Entry] | None = None) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        for name, entry in (entries or {}).items():
            self.register(name, entry)

    def register(self, name: str, entry: Entry) -> None:
        """Add an entry; raises `DuplicateName` if the name is taken."""
        if name in self._entries:
            raise DuplicateName(self.kind, name)
        self._entries[name] = entry

    def entry(self, name: str) -> Entry:
        """Return the entry; raises `UnknownName` with the list of known names."""
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownName(self.kind, name, self) from None

    def get(self, name: str) -> T:
        """Import and return the object.

        Raises:
            UnknownName: no such entry.
            MissingExtra: one of the entry's packages is not installed.
        """
        entry = self.entry(name)
        module, _, attribute = entry.target.partition(":")
        try:
            return cast(T, getattr(importlib.import_module(module), attribute))
        except ModuleNotFoundError as error:
            root = (error.name or "").partition(".")[0]
            if root in entry.packages:
                raise MissingExtra(f"{self.kind} '{name}' (package {root})", entry.extra) from error
            raise

    def require(self, name: str) -> None:
        """Raise `MissingExtra` if a package that the entry needs is absent; imports nothing."""
        entry = self.entry(name)
        if package := entry.missing():
            raise MissingExtra(f"{self.kind} '{name}' (package {package})", entry.extra)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in the order of registration."""
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        """Tell whether a name is registered, without importing anything."""
        return name in self._entries

    def __len__(self) -> int:
        """Count the entries."""
        return len(self._entries)
