"""A run as a FiftyOneDataset that a person can look at: written without FiftyOne or a database.

`dataset` writes the folder, `pair` lays two of them side by side, `app` opens one in the real App.
"""
