"""A served distilled DeiT: wherever patches are named, two tokens come before them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from export.verify import normalize
from models import checkpoint
from tests.support.formats import written
from tests.support.server import running_server


def test_patches_are_found_after_two_tokens(
    format_repository: Callable[[str], Path], tmp_path: Path, photo: bytes
) -> None:
    name = "timm_deit_distilled"
    source = checkpoint.load(written(tmp_path, name), num_heads=3)
    with running_server(format_repository(name)) as server, server.client() as client:
        answer = client.post("/classify", files={"image": photo}).raise_for_status().json()
        query = {"id": answer["results"][0]["id"], "layer": "1", "head": "all", "query": "2,3"}
        npz = client.get("/attention-maps", params=query | {"format": "npz"}).raise_for_status()
        png = client.get("/attention-maps", params=query | {"format": "png"}).raise_for_status()
        outside = client.get("/attention-maps", params=query | {"query": "4,0"})
    (tmp_path / "maps.npz").write_bytes(npz.content)
    with np.load(tmp_path / "maps.npz") as found, torch.inference_mode():
        _, traces = source.network().trace(normalize(found["input"][None], source.preprocessing))
        row = traces[1].softmax[0, :, 2 + 2 * 4 + 3]  # [H, N]
        np.testing.assert_allclose(found["maps"][0], row, atol=1e-5)
    assert png.content.startswith(b"\x89PNG")
    assert outside.status_code == 422
