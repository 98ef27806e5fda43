"""A report on what a model's attention does over a folder of images: a page, numbers, a verdict.

It reads exported models and runs their explain graphs, and knows neither checkpoints nor PyTorch.
"""


class ReportError(Exception):
    """The report cannot be made; the message says why or what to do."""
