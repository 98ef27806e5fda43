"""The kinds of NumPy arrays that pass between modules, named once."""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]  # of an image [S, S, 3], or of several [B, S, S, 3]; RGB
Float32Array = npt.NDArray[np.float32]
Float64Array = npt.NDArray[np.float64]
