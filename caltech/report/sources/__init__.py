"""What there is of a study: its run directories, what was kept of them, and a store.

    asked        what a report is of: a study, or several studies or sweeps side by side
    unknown      whether there can be any, asked first: a mistyped name is told at once
    study        all that there is of one, and which run of a key counts
    directories  runs from the study's folder
    kept         results that are kept in git
    tracked      runs from MLflow
    ensembles    means of several runs' probabilities, computed and kept
    images       which file each test image is
    options      the options of conf/ that a run's config was made of
    proof        whether what was read of a run is a run: its key, its numbers, its answers
    unused       what was found and does not count, in words

May import rows, tracking, runs and what is below them.

- Run directories are read first, then what was kept, then the store for runs whose directories are
  elsewhere. A store that does not answer is a warning if there is anything else.
- What was kept of a run that is the same but for rounding (code, data and accuracies are equal, and
  losses to 1e-4) stays as it is and is what is reported: two people's files in git do not take
  turns. Of other numbers the directory's are kept, and the terminal says so.
- What does not fit is named, in the report and on the terminal, and not used: a run's key is
  computed again from its config, its accuracy from its answers, its best epoch from its curve; its
  files are compared with its manifest, and kept ones with their digests. Nothing is a path that was
  read from a file: what is written is in the study's folder.
- Kept files of before there were digests are read and left as they are. An edited number in one of
  them is found only if another one there depends on it.
"""
