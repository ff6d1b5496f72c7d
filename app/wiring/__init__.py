"""
The composition root: settings -> stores -> stages -> a role that runs.

One module per role, each a list of constructor calls, read from top to bottom.
What an earlier stage needs of a later one is handed in here as a callable.
"""
