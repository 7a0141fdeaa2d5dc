"""The modules of a folder -> their descriptions, by name.

Adding a module adds an option: nothing else lists them. The config reads the descriptions of the
heads, so that these modules import torch and the rooms only inside their functions.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from typing import Any


def module_names(package: str) -> tuple[str, ...]:
    """The names of the modules in a package, sorted; they are not imported."""
    folder = importlib.import_module(package)
    return tuple(sorted(module.name for module in pkgutil.iter_modules(folder.__path__)))


def gather(package: str, attribute: str) -> Mapping[str, Any]:
    """The attribute of each module in a package, by the module's name."""
    return _Modules(package, attribute)


class _Modules(Mapping[str, Any]):
    """Imports a module when its value is read, so that unused modules are not imported."""

    def __init__(self, package: str, attribute: str) -> None:
        self._package, self._attribute = package, attribute
        self._names = module_names(package)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return getattr(importlib.import_module(f"{self._package}.{name}"), self._attribute)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)
