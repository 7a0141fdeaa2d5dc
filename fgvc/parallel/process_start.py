"""When this process started, nearly: the entrypoint imports this module first.

What it imports next takes seconds, which belong to the wall time of a run.
"""

from __future__ import annotations

import time

STARTED = time.monotonic()
