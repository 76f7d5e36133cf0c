"""What became of many runs?

jobs       a sweep's folder and study, a job's record, the table at the end; Hydra's callback
records    what that folder holds: the jobs that were asked for, what became of each
table      both as one table, and how far a sweep is
line       that on a terminal
sweepers   Hydra's sweepers, which write down their jobs before launching them
composed   a job's config, once, and what is written down of the job
search     hydra/sweeper=optuna: a worker of a study, or who starts its workers
study/     which trial is next, and who computes it
killed     of jobs side by side, those whose process was killed
seeds      one point over several seeds
lists      sweep=FILE.csv: each line a job
place      where a command writes, checked before any folder is made
processes  one run, one process; a sweep's end with its command, and it is told of those lost

May import tracking, training and what is below them; not inference or report.

- Before a sweep, dry_run=true lists a grid's jobs with their keys and whether each is finished,
  resumable or new, and does nothing; of a single run it is one line.
- A sweep goes on. A job that fails is told when it happens, leaves nothing in memory and does not
  end the others, nor does one whose process is killed. The exit code is 1 if a job of a grid
  failed, or every trial of a search did (one that diverges is a failed trial), or if there is no
  job at all. Typed again after a kill, a sweep computes what is left.
- The table has a row for every job that was asked for: finished, pruned, failed, interrupted,
  running, waiting (not started, or queued again, while the command lives), missing (never started,
  or lost), unreadable (its record was harmed); the best is marked. Whether a job runs is told by a
  lock, wherever its host is.
  `python -m caltech.sweeps [STUDY] [SWEEP]` prints it at any time, also while the sweep runs.
- seeds=5 repeats a point over five seeds, tells mean ± deviation, and optimises the mean.
- A sweep's study is kept for searches and wherever there is a pruner: in
  multirun/STUDY/optuna.db (storage= takes any URL of Optuna's), with its plots beside the sweep's
  table. pruner=median stops a job whose accuracy falls behind; it is marked as pruned everywhere,
  answered so when typed again, and finished when typed without a pruner.
"""
