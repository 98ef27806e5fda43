"""What a model's attention does over a folder of images: a page, its numbers, a verdict.

Reads exported models and runs their explain graphs; knows nothing of checkpoints or PyTorch.
"""


class ReportError(Exception):
    """There is nothing to report on; the message says what to do."""
