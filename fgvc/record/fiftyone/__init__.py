"""The results of a run -> a FiftyOneDataset to look at; written without FiftyOne or a database.

`dataset` writes the folder, `two_runs` merges two folders, `app` opens a folder in the real App.
"""
