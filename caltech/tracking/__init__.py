"""What is MLflow told?

description  what is known of a run before it starts, kept in its directory
contents     what a directory holds for a store: epochs with their times, the result
note         what stores were told of a run, and how its last process ended
address      where a store is, and in one sentence why it cannot be used
store        the MLflow store: its database, its experiment, its runs
moved        a store that was moved together with its artifacts
copying      the copy of a directory in a store, made at any time, nothing twice
line         a process's line to a store, which may be dead for a while
tracker      who asks for it: a training while it goes on, and after
command      `python -m caltech.tracking study=NAME`: all runs of a study

May import runs and what is below; not training, whose observer a tracker watch is.

- The directory is the truth and MLflow its copy: numbers, curves, parameters, files, start and end
  are read from the directory, live or years later. A store that lacks a finished run (it was lost,
  or is another one) gets it when the run's command is typed again, without training.
- The times of all numbers are the directory's, so what is told again is the same to MLflow.
- Nothing decides by what a store says, except whether it has a run; of a run of earlier code, which
  noted no more than MLflow's id, also how many epochs it has.
- A run is found, gone on with and closed by the random id of its directory, the tag `run`: a copied
  directory is a run of its own. Its parameters are what was used, wherever it was typed.
- A store is opened before any work. One that cannot be used is one message within seconds. One that
  fails later is one warning; training goes on, and the store is left alone for fifty times as
  long as the failed try took.
- A sweep is the tag `sweep`; a run that was finished before counts to the sweep that asked for it
  last. A job that was refused (lr=-1 in a grid) is there too, as FAILED with its reason.
- A run whose process was killed without a word stays RUNNING until any run with the same output
  folder begins, on any host, or the same run is typed again. Whether a process lives is asked of
  the lock on the run's directory. Where a tag says that a directory is, nothing is ever written.
- No lock that a training waits for is held while a store is asked.
"""
