"""The approximate start of this process: the entrypoint imports this module first.

The imports that follow take seconds, which count toward the wall time of a run.
"""

from __future__ import annotations

import time

STARTED = time.monotonic()
