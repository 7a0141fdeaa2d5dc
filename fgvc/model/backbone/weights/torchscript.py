"""A TorchScript archive (OpenAI's CLIP files) -> the tensors of its modules; no code is compiled.

The pickle in the archive holds modules of classes in `__torch__`, with tensors as attributes. Each
module becomes a `Module` that only holds attributes.
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
from fgvc.model.backbone.weights.errors import unreadable_error
from fgvc.types import UserError
from fgvc.untrusted.escape import one_line

if TYPE_CHECKING:
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


# the Python reader keeps its memo in a dictionary, so that a forged index allocates no memory
class _Reader(pickle._Unpickler):
    """Rebuilds modules, tensors, lists and plain values; refuses every other name."""

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
            # a new function per name, because a pickle may set its attributes
            return lambda values, offset, size, stride, *_: values.as_strided(size, stride, offset)
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module == "torch" and name in DTYPES:
            import torch

            return getattr(torch, DTYPES[name])
        if module == "torch.jit._pickle" and name in LIST_BUILDERS:
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return lambda value, _: value
        raise pickle.UnpicklingError(one_line(f"{module}.{name}", 60))

    def persistent_load(self, pid: Any) -> Tensor:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not re.fullmatch(r"\w+", str(key)):
            raise pickle.UnpicklingError(f"the stored object {one_line(kind, 40)}")
        if key not in self.storages:
            import torch

            data = bytearray(self.archive.read(f"{self.root}data/{key}"))
            values = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            if len(values) < count and data:
                raise EOFError(f"data/{key} holds {len(values)} of {count} numbers")
            self.storages[key] = values
        return self.storages[key]


def read(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of all modules, by their names in the archive's state dict.

    Raises:
        UserError: damaged, or it holds more than modules of tensors; nothing was run.
    """
    try:
        untrusted.check_pickles(path)
        with zipfile.ZipFile(untrusted.require_regular(path)) as archive:
            root = next(name for name in archive.namelist() if name.endswith("constants.pkl"))
            root = root.removesuffix("constants.pkl")
            order = f"{root}byteorder"
            if order in archive.namelist() and archive.read(order).strip() != b"little":
                raise UserError(
                    f"weights {path} were saved on a big-endian machine: save them as .safetensors "
                    "there"
                )
            module = _Reader(archive, root).load()
            if not isinstance(module, Module):
                raise UserError(f"weights {path} are a TorchScript archive without a module")
            return dict(_named_tensors(module, _state_dict_names(archive, root), "", 0))
    except pickle.UnpicklingError as error:
        raise UserError(
            f"weights {path} are a TorchScript archive that names {error}: refused, and nothing in "
            "the file was run; save its state dict alone, preferably as .safetensors"
        ) from error
    except UserError:
        raise
    except Exception as error:  # each layer of the format reports damage with its own errors
        raise unreadable_error(path, error) from error


def _state_dict_names(archive: zipfile.ZipFile, root: str) -> dict[str, list[str]]:
    """Class -> names of its parameters and buffers; other tensors are not in the state dict."""
    names_by_class = {}
    for name in archive.namelist():
        if name.startswith(f"{root}code/") and name.endswith(".py"):
            module = name.removeprefix(f"{root}code/").removesuffix(".py").replace("/", ".")
            text = archive.read(name).decode("utf-8", "replace")
            for class_name, parameters, buffers in CLASS_PATTERN.findall(text):
                names = re.findall(r'"([^"]*)"', f"{parameters} {buffers}")
                names_by_class[f"{module}.{class_name}"] = names
    return names_by_class


def _named_tensors(
    module: Module, tensor_names: Mapping[str, list[str]], prefix: str, depth: int
) -> Iterator[tuple[str, Tensor]]:
    from torch import Tensor

    if depth > MAX_DEPTH:
        raise ValueError("its modules hold each other")
    names = tensor_names.get(module.path)
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Tensor) and (names is None or name in names):
            yield f"{prefix}{name}", value
    for name, value in getattr(module, "attributes", {}).items():
        if isinstance(value, Module):
            yield from _named_tensors(value, tensor_names, f"{prefix}{name}.", depth + 1)
