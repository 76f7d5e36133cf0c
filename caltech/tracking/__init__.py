"""What is MLflow told?

description  what is known of a run before it starts
tracker      an observer of a training that tells it to MLflow, or to nobody
store        the MLflow store, in which runs are created, continued and closed

May import runs and what is below; not training, whose observer a tracker is.

- A training is one run, the same one on resume, with every epoch once. Its parameters are what was
  used, wherever it was typed; what nothing used is not told.
- A sweep is the tag `sweep`; a run that was finished before counts to the sweep that asked for it
  last. A job that was refused (lr=-1 in a grid) is there too, as FAILED with its reason.
- A run whose process was killed without a word stays RUNNING until the next run on the same host
  opens the store, which ends it as KILLED, or until the same run is typed again, which goes on
  under its id. Whether a process lives is asked of the lock on the run's directory.
- A server that does not answer ends a run, hides no other error, and makes no second run of it.
"""
