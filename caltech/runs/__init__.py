"""One run's directory: what is in it, what it was made from, how it is found.

directory   the names of its files, and one process at a time
identity    which run it is: a random name of its own, that a copy does not have
progress    how far it is: the epochs behind it, and the place inside an epoch
checkpoint  states and weights on disk: whole, or the version before, or found out
provenance  the data, weights, code and machine behind a result, which the config does not tell
result      what it came to
ending      the last lines of a command: where its run is, and what to type next
logits      what it gave for validation and test images, and its temperature
manifest    which files belong to the result
known       which runs there are, by their folders' names alone
find        a finished run by its key, its directory, or the best in validation; a start from one
extension   a run of more epochs goes on from one of fewer

It may import data and models, and what stands below them. A run is a function of its config
(keys.py), so:

- Typing a command again resumes an interrupted run at its last checkpoint, bitwise as if it had not
  stopped (on a CPU, with as many threads), and answers a finished one. `rerun=true` computes it
  again and keeps the old files aside.
- Other data or weights under the same key are refused, with what is to be typed. Other code is
  flagged, also where it went on with a run.
- `start=KEY` refuses a run of another split: what it was trained on may be tested on here.
- Whether a process lives is asked of the lock on the run's directory, never of a process number.
  Where locks do not reach, the token in holder.json tells at the next commit who goes on.
- Every file knows its run: the checkpoint and the provenance by the run's key, the others by the
  manifest. What is another run's, or was edited, is named and not used. A directory that holds
  another run is refused before any work.
- The versions of all that decides bits are recorded; others are warned of.
- A run keeps its last two checkpoints until it is finished: two at rest, and three of more
  than 64 MB never, also while one is written. A finished one has none, or its last with
  `keep_checkpoint=true`.
- `num_epochs=40` after a finished run of 30 goes on from its checkpoint, bitwise as 40 at once, if
  the schedule gives the same rates (both are walked) and nothing else depends on num_epochs, or
  begins at its start and says why. The run of 30 stays as it is.
- What training did not change is kept once: frozen.safetensors in each run's directory, one place
  on the disk for all runs of a study (hard links), so that a directory that is moved or copied
  alone is whole. last and best hold what was trained and note its checksum. Files of earlier code
  hold all.
- Every byte of checkpoints, weights, results and provenance is compared with a checksum each time
  it is read. Nothing that is read is executed.
"""
