"""Transfer-learning studies as one command a run.

completion  the Tab key
__main__    all commands under one word: `caltech train`
train predict export    what is typed; also `python -m caltech.report` and `... caltech.data audit`
sweeps/     what became of many runs
inference/  a finished run that answers
overview/   what runs are there, what room they take, where they are looked at
report/     a study's tables, page and pictures
training/   how weights change
tracking/   what MLflow is told
runs/       one run's directory: what is in it, what it was made from, how it is found
data/       which images, in which split, as which pixels
models/     which network, where it is cut, what is frozen
config      what a config may name, and how an option is built
keys        what a run is: its key
composer    Hydra's loader of configs, with our checks
vocabulary  whether a word is right, and the nearest words that are
trust       what a config file may say of Hydra
words       one word of a command line
settings    what may be typed: each root key once
cache       a big array on disk, computed once
links       one place on the disk for what several files hold
files       whole, or not there, or found out
errors      sentences instead of tracebacks
metrics     the names of all numbers

A file imports what stands below it in this list, and of the folders that stand together neither
sweeps, inference, report and overview, nor training and tracking, nor data and models, nor
vocabulary and trust each other (pyproject.toml: importlinter).
"""
