"""The exit codes of a command. Standard library only: `--help` must not wait for numpy."""

DONE, FAILED, WRONG_COMMAND = 0, 1, 2
PREEMPTED = 75  # stopped and resumable
