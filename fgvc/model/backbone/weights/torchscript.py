"""A TorchScript archive (OpenAI's CLIP files) -> the tensors of its modules; no code is compiled.

The pickle in the archive holds modules of classes below `__torch__`, with tensors as attributes.
Each module becomes a `Module` that only holds attributes.
"""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fgvc import untrusted
from fgvc.model.backbone.weights.read_file import unreadable_error
from fgvc.types import UserError
from fgvc.untrusted.escape import one_line

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DTYPES = {
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
LIST_BUILDERS = ("build_intlist", "build_tensorlist", "build_doublelist", "build_boollist")
MAX_DEPTH = 64  # of modules inside modules
CLASS_PATTERN = re.compile(
    r"^class (\w+)\(Module\):\n +__parameters__ = \[(.*?)\]\n +__buffers__ = \[(.*?)\]",
    re.MULTILINE,
)


class Module:
    """A module of the archive: its attributes by name."""

    path = ""  # of its class: module and name

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}


class _Callable:
    """A function that a file may name; a file cannot change it."""

    __slots__ = ()

    def __setstate__(self, state: object) -> None:
        raise pickle.UnpicklingError("a function that is changed")


class _RebuildTensor(_Callable):
    __slots__ = ()

    def __call__(
        self, storage: Tensor, offset: int, size: list[int], stride: list[int], *_: object
    ) -> Tensor:
        return storage.as_strided(size, stride, offset)


class _RestoreTypeTag(_Callable):
    __slots__ = ()

    def __call__(self, value: object, _: object) -> object:
        return value


# the Python reader keeps its memo in a dictionary: a forged index cannot claim memory
class _Reader(pickle._Unpickler):
    """Knows modules, tensors, lists and plain values; every other name is refused."""

    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(io.BytesIO(archive.read(f"{root}data.pkl")))
        self.archive, self.root = archive, root
        self.storages: dict[str, Tensor] = {}
        self.classes: dict[str, type] = {}

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            path = f"{module}.{name}"
            return self.classes.setdefault(path, type("Module", (Module,), {"path": path}))
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _RebuildTensor()
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in DTYPES:
            import torch

            return getattr(torch, DTYPES[name])
        if module == "torch.jit._pickle" and name in LIST_BUILDERS:
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return _RestoreTypeTag()
        raise pickle.UnpicklingError(one_line(f"{module}.{name}", 60))

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not re.fullmatch(r"\w+", str(key)):
            raise pickle.UnpicklingError(f"the stored object {one_line(kind, 40)}")
        if key not in self.storages:
            self.storages[key] = self._storage(dtype, key, count)
        return self.storages[key]

    def _storage(self, dtype: torch.dtype, key: str, count: int) -> Tensor:
        import torch

        data = bytearray(self.archive.read(f"{self.root}data/{key}"))
        if not data:
            return torch.empty(0, dtype=dtype)
        storage = torch.frombuffer(data, dtype=dtype)
        if len(storage) < count:
            raise EOFError(f"data/{key} holds {len(storage)} of {count} numbers")
        return storage


def read(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of all modules, named as in the state dict of the archive's module.

    Raises:
        UserError: damaged, or it holds more than modules of tensors; nothing was run.
    """
    try:
        untrusted.check_pickles(path)
        with zipfile.ZipFile(untrusted.require_regular(path)) as archive:
            root = next(name for name in archive.namelist() if name.endswith("constants.pkl"))
            root = root.removesuffix("constants.pkl")
            _refuse_big_endian(archive, root, path)
            module = _Reader(archive, root).load()
            if not isinstance(module, Module):
                raise UserError(f"weights {path} are a TorchScript archive without a module")
            listed = _state_dict_names(archive, root)
            return dict(_named_tensors(module, listed, "", 0))
    except pickle.UnpicklingError as error:
        raise UserError(
            f"weights {path} are a TorchScript archive that names {error}: refused, and nothing in "
            "the file was run; save its state dict by itself, best as .safetensors"
        ) from error
    except UserError:
        raise
    except Exception as error:  # a damaged archive fails in as many ways as there are layers
        raise unreadable_error(path, error) from error


def _refuse_big_endian(archive: zipfile.ZipFile, root: str, path: Path) -> None:
    order = f"{root}byteorder"
    if order in archive.namelist() and archive.read(order).strip() != b"little":
        raise UserError(
            f"weights {path} were saved on a big-endian machine: save them as .safetensors there"
        )


def _state_dict_names(archive: zipfile.ZipFile, root: str) -> dict[str, list[str]]:
    """Class -> names of its parameters and buffers; other tensors are no part of a state dict."""
    listed = {}
    for name in archive.namelist():
        if name.startswith(f"{root}code/") and name.endswith(".py"):
            module = name.removeprefix(f"{root}code/").removesuffix(".py").replace("/", ".")
            text = archive.read(name).decode("utf-8", "replace")
            for kind, parameters, buffers in CLASS_PATTERN.findall(text):
                names = re.findall(r'"([^"]*)"', f"{parameters} {buffers}")
                listed[f"{module}.{kind}"] = names
    return listed


def _named_tensors(
    module: Module, listed: Mapping[str, list[str]], prefix: str, depth: int
) -> Iterator[tuple[str, Tensor]]:
    from torch import Tensor

    if depth > MAX_DEPTH:
        raise ValueError("its modules hold each other")
    names = listed.get(module.path)
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Tensor) and (names is None or name in names):
            yield f"{prefix}{name}", value
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Module):
            yield from _named_tensors(value, listed, f"{prefix}{name}.", depth + 1)
