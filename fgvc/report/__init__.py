"""Many run folders -> one table, derived from the files of the folders alone.

run_rows: a verified folder -> a typed row. aggregate_seeds: rows -> one line per configuration.
ranking: lines -> ranked groups, with the pairs and tests of pairwise_tests.
baselines: groups -> csv and json; baselines_page: html; terminal_table: the terminal.
compare: two runs. audit: the promises of one run. plan: an experiment before it runs. model_card:
README of an export. markdown_template: the templates of both. prune: what may be deleted.
sweep_table, sweep_axes, sweep_page, search_table: jobs and trials.
"""
