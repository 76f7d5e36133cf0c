"""What runs are there, what room do they take, and where can they be looked at?

listing   a study's runs, read from their directories alone
runs      `caltech runs`: that list in 80 columns, or for a spreadsheet
clean     `caltech clean`: what disk can be freed, and how much; yes=true frees it
view      how MLflow's page shows our runs: columns, order, the first curve
ui        `caltech ui`: that page, on this machine alone
server    MLflow's server behind it, which ends with the command
typed     the words of these commands

May import tracking, runs and what is below them; torch is not loaded for a list or for cleaning.

- Nothing is ever deleted that a result needs, nor anything of a run whose lock a process holds, nor
  without yes=true.
- A list takes no lock and changes no file.
"""
