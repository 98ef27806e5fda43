"""Attention reuse (paper, Table 3) as an export option: later blocks share one block's softmax map.

A block that mixes heads still mixes the shared map by its own Theta.
"""
