"""Trains a network of models/deepvit.py on photographs: `python -m models.training`.

Needs PyTorch only. The result is a safetensors file that `python -m export` reads.
"""
