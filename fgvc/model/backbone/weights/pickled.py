"""torch.save's file -> tensors and plain values, without running anything it names.

torch's own weights_only reader rebuilds the tensors. Objects that training programs often store
beside them (argparse.Namespace, NumPy scalars) become placeholders that keep nothing: their own
code never runs. Any other name in the file refuses the file.
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
from fgvc.model.backbone.weights.read_file import unreadable_error
from fgvc.types import UserError


class Placeholder:
    """Stands for an object that is not a tensor; ignores what it is made of."""

    __slots__ = ()

    def __new__(cls, *args: object) -> Placeholder:
        return object.__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

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
        UserError: damaged, or it names code beyond tensors and `PLACEHOLDERS`; nothing was run.
    """
    import torch

    try:
        untrusted.check_pickles(path)
        with untrusted.open_regular(path) as file, _only_placeholders(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on the pickle protocol
            # given a path, torch would go by its ending
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(_refusal_message(path, str(error))) from error
    except Exception as error:  # a damaged archive fails in as many ways as there are layers
        raise unreadable_error(path, error) from error


@contextmanager
def _only_placeholders() -> Iterator[None]:
    """Whatever other libraries in this process declared safe does not hold here."""
    from torch import serialization

    before = serialization.get_safe_globals()
    serialization.clear_safe_globals()
    serialization.add_safe_globals(list(PLACEHOLDERS))
    try:
        yield
    finally:
        serialization.clear_safe_globals()
        serialization.add_safe_globals(before)


def _refusal_message(path: Path, reason: str) -> str:
    called = re.search(r"GLOBAL (\S+)", reason)
    if called is None and (opcode := re.search(r"Unsupported operand (\d+)", reason)) is not None:
        what = f"pickled with a protocol that torch's safe reader does not read (byte {opcode[1]})"
    elif called is not None:
        what = f"not tensors alone (they name {called[1]})"
    else:
        what = "not tensors alone"
    return (
        f"weights {path} are {what}: refused, and nothing in the file was run; save the state dict "
        "by itself where the file was made, as .safetensors or with torch.save's own protocol"
    )
