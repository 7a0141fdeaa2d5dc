"""A file of torch.save -> tensors and plain values, without running any code that the file names.

torch's own weights_only reader rebuilds the tensors. Objects that training programs often store
beside them (argparse.Namespace, NumPy scalars) become empty placeholders; their code never runs. A
file that names any other object is refused.
"""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fgvc import untrusted
from fgvc.model.backbone.weights.errors import unreadable_error
from fgvc.types import UserError


class Placeholder:
    """Stands for an object that is not a tensor; ignores the object's state."""

    __slots__ = ()

    def __new__(cls, *args: object) -> Placeholder:
        return object.__new__(cls)

    def __setstate__(self, state: object) -> None:
        pass


class Namespace(Placeholder):
    """Stands for argparse.Namespace: the options of a training program."""

    __slots__ = ()


class NumpyScalar(Placeholder):
    """Stands for a NumPy scalar and its dtype, such as a best accuracy."""

    __slots__ = ()


PLACEHOLDERS = (
    (Namespace, "argparse.Namespace"),
    (NumpyScalar, "numpy.core.multiarray.scalar"),
    (NumpyScalar, "numpy._core.multiarray.scalar"),
    (NumpyScalar, "numpy.dtype"),
)


def read(path: Path) -> Any:
    """The content of a file of torch.save, zip or legacy, on the CPU.

    Raises:
        UserError: damaged, or it names objects besides tensors and `PLACEHOLDERS`; nothing was run.
    """
    import torch

    try:
        untrusted.check_pickles(path)
        with untrusted.open_regular(path) as file, _only_placeholders(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the pickle protocol
            # a file object, because torch would judge a path by its suffix
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = "not tensors alone"
        if named := re.search(r"GLOBAL (\S+)", str(error)):
            what = f"not tensors alone (they name {named[1]})"
        elif opcode := re.search(r"Unsupported operand (\d+)", str(error)):
            protocol = "a protocol that torch's safe reader does not read"
            what = f"pickled with {protocol} (byte {opcode[1]})"
        raise UserError(
            f"weights {path} are {what}: refused, and nothing in the file was run; save the state "
            "dict alone on the original machine, as .safetensors or with torch.save's own protocol"
        ) from error
    except Exception as error:  # each layer of the format reports damage with its own errors
        raise unreadable_error(path, error) from error


@contextmanager
def _only_placeholders() -> Iterator[None]:
    """Replace what other libraries in this process declared safe by `PLACEHOLDERS`."""
    from torch import serialization

    previous = serialization.get_safe_globals()
    serialization.clear_safe_globals()
    serialization.add_safe_globals(list(PLACEHOLDERS))
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(previous)
