"""Writes the files that the JavaScript tests read: `python -m tests.web.make_fixtures`.

NumPy and zipfile write them, so that npy.js and npz.js are held against the formats, not
against themselves.
"""

import zipfile
from pathlib import Path

import numpy as np

FIXTURES = Path(__file__).parent / "fixtures"


def main() -> None:
    FIXTURES.mkdir(exist_ok=True)
    ramp = np.arange(6, dtype="<f4").reshape(2, 3) / 4 - 0.5
    arrays = {
        "float32": ramp,
        "vector": ramp[0],
        "scalar": np.float32(2.5),
        "empty": np.zeros((0, 3), "<f4"),
        "uint8": np.array([[0, 127], [128, 255]], np.uint8),
        "fortran_order": np.asfortranarray(ramp),
        "float64": ramp.astype("<f8"),
        "big_endian": ramp.astype(">f4"),
    }
    for name, array in arrays.items():
        np.save(FIXTURES / f"{name}.npy", array)
    with (FIXTURES / "version_2.npy").open("wb") as file:
        np.lib.format.write_array(file, ramp, version=(2, 0))
    with zipfile.ZipFile(FIXTURES / "arrays.npz", "w", zipfile.ZIP_STORED) as archive:
        for name in ("float32", "uint8"):
            member = zipfile.ZipInfo(f"{name}.npy")  # dated 1980-01-01
            member.create_system = 0
            archive.writestr(member, (FIXTURES / f"{name}.npy").read_bytes())
            member.external_attr = 0  # no Unix permissions


if __name__ == "__main__":
    main()
