"""One module per `task=`, with `run(job)`: a page that reads like the protocol it implements.

`run` returns None, or an exit code where the answer can be "no" without a failure, or Skipped where
a complete run answers the job already.
"""
