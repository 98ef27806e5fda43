"""Attention reuse (paper, Table 3) as an export option: later blocks share one block's softmax map.

What multiplies V in a block that mixes heads is still mixed by its own Theta.
"""
