"""Failures of torch.compile -> one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fgvc.types import UserError


@contextlib.contextmanager
def one_line(compiles: bool) -> Iterator[None]:
    """Explain that nothing could be compiled; the first call of a compiled function compiles it.

    compiles: runtime.compile; without it, nothing is imported or caught.

    Raises:
        UserError: with the compiler's own reason, such as a missing C++ compiler.
    """
    if not compiles:
        yield
        return
    from torch._dynamo.exc import TorchDynamoException

    try:
        yield
    except TorchDynamoException as error:
        cause = getattr(error, "inner_exception", error)  # without PyTorch's own explanations
        reason = str(cause).strip().partition("\n")[0]
        raise UserError(
            f"runtime.compile=true: torch.compile fails here ({reason}); install what is missing "
            "(on a CPU, a C++ compiler), or set runtime.compile=false"
        ) from error
