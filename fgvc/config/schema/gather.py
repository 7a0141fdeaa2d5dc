"""The modules of a folder -> what each of them describes, by name.

Adding a module adds an option: nothing else lists them. The config reads the descriptions of the
heads, so that these modules import torch and the rooms only inside their functions.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from typing import Any


def module_names(package: str) -> tuple[str, ...]:
    """The names of the modules in a package, sorted; they are not imported."""
    folder = importlib.import_module(package)
    return tuple(sorted(module.name for module in pkgutil.iter_modules(folder.__path__)))


def gather(package: str, attribute: str) -> Mapping[str, Any]:
    """The attribute of each module in a package, by the module's name."""
    return {
        name: getattr(importlib.import_module(f"{package}.{name}"), attribute)
        for name in module_names(package)
    }
