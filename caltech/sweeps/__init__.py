"""What became of many runs?

jobs    a sweep's folder, a record of each of its jobs, the table at the end; Hydra's callback
trials  a sweep's study in Optuna: pruning, plots

May import tracking, training and what is below them; not inference or report.

- Before a sweep, dry_run=true lists a grid's jobs with their keys and whether each is finished,
  resumable or new, and does nothing.
- A sweep goes on. A job that fails is told when it happens and does not end the others; the table
  marks the best, and the exit code is 1 if a job of a grid failed (to a search, a trial that
  diverges is a failed trial). Typed again after a kill, a sweep computes what is left. seeds=5
  repeats a point over five seeds and optimises their mean.
- A sweep's study is kept for searches and wherever there is a pruner: in multirun/STUDY/optuna.db
  (storage= takes any URL of Optuna's), with its plots beside the sweep's table. pruner=median stops
  a job whose accuracy falls behind; it is marked as pruned everywhere, answered so when typed
  again, and finished when typed without a pruner.
"""
