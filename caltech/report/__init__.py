"""A study's tables, page and pictures.

    typed        python -m caltech.report: what was typed, looked at before anything is read
    command      from runs to files, and where each row is from
    sources      what there is of a study: run directories, kept results, a store
    trained      one tracked training: its numbers, curves and answers
    rows         what tables are made of: rows, each a config with all its seeds
    arrange      which runs are one row, which rows one table, and the rows of conf/experiment
    statistics   intervals and paired tests
    conclusions  what a table says, in sentences
    defaults     what all rows of a table share that is not as conf/ has it
    tables       the list of columns; to add one to all forms is to add it there
    render       Markdown, CSV, page and gallery, from templates/, where words are, too
    pictures     learning curves, reliability, confusions, accuracy of every class
    landscape    what a sweep found over the keys that it varied

May import tracking, runs, data and what is below them. torch is loaded for the gallery and for the
curves of a run of earlier code that was not kept, MLflow if there is a store.

- A report made again is the same bytes: from directories, from the store, from what was kept, in a
  folder that was moved, and with or without the data set. So where rows are from is told on the
  terminal and not in the files.
- A run counts once. What is not finished counts nowhere and is marked, as are collapsed runs, other
  code, other versions of libraries and other data.
- Verdicts: the published number is one run, too. *better* or *worse* is said if the interval of the
  difference (Wilson for both, joined with the seeds) leaves zero out, else *agrees*; *open* where
  one seed cannot carry a verdict. At most 5 % are false. A published mean over classes is compared
  with where one further split is expected by ours. A number whose protocol (published.protocol:
  images of a part, classes) is not told, or not that of our runs, has no verdict.
- The sentences above a table compare its best row with each other by what they quote: the answers
  of the best epochs of all seeds, with seeds and images both as chance, adjusted by Holm. Of
  equal recipes with several seeds at most 5 % are told to differ. The table of McNemar's tests is
  of the first seeds' last epochs: of two trained models, not of two recipes.
- Whether seeds or splits varied is a footnote; two splits of one seed are two runs.
- Runs of older code are read: seeds join by the key that their config has today.
- `ensemble=KEY,KEY,KEY` adds the mean of these runs' probabilities to a study, as a row of its own
  table with McNemar's test beside the member of highest validation accuracy. It needs the runs'
  logits, is kept in kept/ensembles/, and stays until its two files there are deleted.
- Wrong answers, confusions and classes name image files: as the runs' directories say, or the data
  set if it is here. The names are kept once for a data set (kept/images-SHA256.csv). A store does
  not have them.
- Nothing is created or downloaded to make a report, and no lock is taken in a run's directory that
  its training would notice. The page loads nothing; all is escaped.
"""
