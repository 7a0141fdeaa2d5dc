"""How a command ends -> its exit code. Standard library only: `--help` must not wait for numpy."""

DONE, FAILED, WRONG_COMMAND = 0, 1, 2
PREEMPTED = 75  # stopped and resumable
