"""Numbers to pictures (PNG) with matplotlib, which takes half a second to load: import a room
of this package when its first picture is asked for, and draw in one thread, as it shares state.

Knows arrays and words; nothing of models, HTTP or what the numbers mean.
"""
