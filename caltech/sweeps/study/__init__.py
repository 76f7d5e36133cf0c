"""Which trial is next, and who computes it?

workers    a process's part in a study: begin a trial, take one up, until there are enough
proposals  the next trial, as Optuna's sampler has it
trials     a job's trial: it is told of epochs, stopped by a pruner, closed
origin     the data, code, sampler and folder that a study was begun with
space      what a command leaves open
storage    where studies are kept
plots      Optuna's own, of a study

May import records and table beside it, and what sweeps may.

- A proposal follows from the trials, the sampler's seed and the job's number. So a search of one
  worker that was interrupted anywhere has the same trials as an undisturbed one.
- A trial is put into the study whole, with its key, and a key once. A proposal whose key is in the
  study is passed over for another: nothing is trained twice. Of two that began one key where locks
  do not reach the other, the first in the storage has it.
- A trial that runs in the study and whose lock nobody holds is taken up by the next worker that
  asks, and goes on from its checkpoint.
"""
