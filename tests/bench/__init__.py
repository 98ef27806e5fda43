"""`make bench`: speed as ratios to what a user would run instead, with contenders taking turns.

These are not tests: nothing passes or fails. Figures are printed as tables and written to
docs/bench: a JSON line that describes the machine, then one line for each figure.
"""
