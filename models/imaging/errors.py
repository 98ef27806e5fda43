"""Why bytes are not read as a picture."""


class ImageError(Exception):
    """The bytes are not read as a picture; the message says why."""


class UnsupportedImage(ImageError):
    """Not an image, or not in a format that is read."""


class DamagedImage(ImageError):
    """An image that is truncated or otherwise broken."""


class OversizedImage(ImageError):
    """An image of more pixels than the reader takes."""


class CostlyImage(ImageError):
    """An image that would take far more memory or time than its pixels are worth."""
