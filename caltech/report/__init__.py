"""A study's tables, page and pictures.

    command     python -m caltech.report: from runs to files
    sources     runs from MLflow with their files, and results that are kept in git
    rows        what a report is made of: runs, rows (a config with all its seeds), tables
    arrange     which runs are one row, which rows one table, and the rows of conf/experiment
    statistics  intervals, paired tests, calibration
    tables      the list of columns; to add one to all forms is to add it there
    render      Markdown, CSV, page and gallery, from templates/, where words are, too
    pictures    learning curves, reliability, confusions, accuracy of every class
    landscape   what a sweep found over the keys that it varied

May import tracking, runs, data and what is below them; torch is loaded for the gallery alone.

- A report made again is the same bytes: from the store, from what was kept of it, and with or
  without the data set. From a clean clone, `tracking=none` makes it from kept/.
- A run counts once: by the store's newest finished one, else a kept one. What is not finished
  counts nowhere and is marked, as are collapsed runs, other code and other data.
- Verdicts: *agrees* if the published number is inside our 95 % interval (Wilson for the images,
  joined with Student over the seeds), else *better* or *worse*; never on other images.
- Runs of older code are read: seeds join by the key that their config has today.
- Nothing is created or downloaded to make a report. The page loads nothing; all is escaped.
"""
