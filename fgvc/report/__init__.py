"""Many run folders -> one table, derived from what the folders say and from nothing else.

sealed: a folder's verified bytes -> runs: a typed row -> fold: a line a configuration -> rank:
groups that may be ranked, with ties -> baselines: csv and json; page: html; table: the terminal.
compare holds two runs against each other, audit one against its promises, prune all against time.
"""
