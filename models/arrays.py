"""Names for the types of NumPy arrays that modules exchange."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # RGB, one image [height, width, 3] or several [B, S, S, 3]
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
