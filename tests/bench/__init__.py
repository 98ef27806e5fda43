"""`make bench`: speed, as ratios against what a user would run instead, contenders taking turns.

Not tests: nothing here passes or fails. What is measured is printed as tables and written to
docs/bench, one JSON line a figure after one that states the machine.
"""
