"""Pictures of maps and measures: every pixel that stands for a number has that number's colour."""

import io
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.conftest import DEEPVIT, VIT
from tests.support.panels import Canvas, canvas_of, colours, corners, framed

GRID, TOKENS, BLOCKS = 8, 65, 16
STEP = 4  # of 256, by which neighbouring colours of a scale differ


@pytest.fixture(scope="module")
def image_id(client: httpx.Client, photo: bytes) -> str:
    found: str = client.post("/classify", files={"image": photo}).json()["results"][0]["id"]
    return found


def png(client: httpx.Client, path: str, query: dict[str, Any]) -> bytes:
    response = client.get(path, params=query | {"format": "png"})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "image/png"
    return response.content


@pytest.mark.parametrize("scale", ["map", "block", "all"])
@pytest.mark.parametrize("stage", ["softmax", "reattention"])
def test_colours_show_the_maps_on_the_requested_scale(
    client: httpx.Client, image_id: str, stage: str, scale: str
) -> None:
    query = {"id": image_id, "stage": stage, "layer": "0,5,9", "head": "all"}
    values = np.array(client.get("/attention-maps", params=query).json()["values"])[..., 1:]
    axes = {"map": 2, "block": (1, 2), "all": None}[scale]
    largest = np.abs(values).max(axis=axes, keepdims=True)
    canvas = canvas_of(png(client, "/attention-maps", query | {"scale": scale}))
    found = corners(framed(canvas), GRID)
    expected = colours(values / largest, signed=stage == "reattention")
    assert np.abs(found - expected.reshape(3, 6, GRID, GRID, 3)).max() <= STEP


def test_a_single_map_has_its_numbers_in_it(client: httpx.Client, image_id: str) -> None:
    query = {"id": image_id, "layer": "3", "head": "2"}
    values = np.array(client.get("/attention-maps", params=query).json()["values"])[0, 0, 1:]
    [[panel]] = framed(canvas_of(png(client, "/attention-maps", query)))
    expected = colours(values / np.abs(values).max(), signed=True).reshape(GRID, GRID, 3)
    assert np.abs(corners(panel, GRID) - expected).max() <= STEP
    side = len(panel) // GRID
    cells = panel.reshape(GRID, side, GRID, side, 3).swapaxes(1, 2).reshape(-1, side, side, 3)
    assert all(np.ptp(cell, axis=(0, 1)).max() > 60 for cell in cells)  # a number's ink


@pytest.mark.parametrize(("stage", "signed"), [("softmax", False), ("reattention", True)])
def test_matrices_of_all_tokens(
    client: httpx.Client, image_id: str, stage: str, signed: bool
) -> None:
    query = {"id": image_id, "stage": stage, "layer": "4", "head": "1,3", "query": "all"}
    values = np.array(client.get("/attention-maps", params=query).json()["values"])
    panels = framed(canvas_of(png(client, "/attention-maps", query)))
    expected = colours(values / np.abs(values).max(), signed=signed)
    assert np.abs(corners(panels, TOKENS) - expected).max() <= STEP


def test_all_notes_fit_above_few_maps(client: httpx.Client, image_id: str) -> None:
    query = {"id": image_id, "layer": "3,4", "scale": "map", "overlay": "true", "query": "2,5"}
    with Image.open(io.BytesIO(png(client, "/attention-maps", query))) as picture:
        notes = picture.info["Description"].splitlines()[-1]
    assert len(notes.split("; ")) == 4
    assert framed(canvas_of(png(client, "/attention-maps", query))).shape[:2] == (2, 1)


def test_rollout_over_the_picture(client: httpx.Client, image_id: str) -> None:
    query = {"id": image_id, "stage": "softmax", "layer": "rollout"}
    answer = client.get("/attention-maps", params=query | {"format": "npz"})
    with np.load(io.BytesIO(answer.content)) as arrays:
        values, seen = arrays["maps"][0, 0, 1:].astype(np.float64), arrays["input"]
    [[panel]] = framed(canvas_of(png(client, "/attention-maps", query | {"overlay": "true"})))
    size = len(seen)
    layer = colours(values / values.max(), signed=False).reshape(GRID, GRID, 3)
    layer = layer.repeat(size // GRID, axis=0).repeat(size // GRID, axis=1)
    expected = 0.65 * layer + 0.35 * seen.mean(axis=-1, keepdims=True)
    assert np.abs(corners(panel, size) - expected).max() <= STEP


def test_the_query_patch_is_outlined(client: httpx.Client, image_id: str) -> None:
    query = {"id": image_id, "layer": "3", "head": "2", "query": "2,5", "overlay": "true"}
    [[panel]] = framed(canvas_of(png(client, "/attention-maps", query)))
    side = len(panel) // GRID
    black = (panel == 0).all(axis=-1)
    rows, columns = np.nonzero(black)
    assert (rows.min(), rows.max() + 1) == (2 * side, 3 * side)
    assert (columns.min(), columns.max() + 1) == (5 * side, 6 * side)
    assert (panel[2 * side + 1, 5 * side + 1] == 255).all()


@pytest.mark.parametrize("overlay", ["true", "false"])
@pytest.mark.parametrize("query", ["cls", "3,4", "all"])
@pytest.mark.parametrize("head", ["all", "mean", "rms"])
def test_pictures_of_all_blocks(
    client: httpx.Client, image_id: str, head: str, query: str, overlay: str
) -> None:
    asked = {"id": image_id, "head": head, "query": query, "overlay": overlay}
    panels = framed(canvas_of(png(client, "/attention-maps", asked)))
    assert panels.shape[:2] == ((BLOCKS, 6) if head == "all" else (4, 4))
    assert all(np.ptp(panel) > 0 for panel in panels.reshape(BLOCKS, -1))


def diagonals(canvas: Canvas, *, signed: bool) -> list[Canvas]:
    """The first row of matrices, [side, side, 3] each, found by the ones on their diagonals."""
    one = colours(np.ones(1), signed=signed).round()
    ends = (np.abs(canvas - one).max(axis=-1) <= 1).astype(int)
    top = int(ends.any(axis=1).argmax())
    height = int(ends[top:].any(axis=1).argmin())
    steps = np.diff(ends[top + 3], prepend=0, append=0)
    runs = list(zip(np.flatnonzero(steps == 1), np.flatnonzero(steps == -1), strict=True))
    cell = runs[0][1] - runs[0][0]  # other runs belong to colour bars
    return [
        canvas[top : top + height, left : left + height]
        for left, right in runs
        if right - left > 0.9 * cell
    ]


@pytest.mark.parametrize(
    ("model", "stage", "variant", "signed"),
    [
        (VIT, "softmax", "row", False),
        (
            VIT,
            "reattention",
            "column",
            False,
        ),  # mixes no heads: the same maps
        (VIT, "softmax", "centred", True),
        (DEEPVIT, "reattention", "column", True),
    ],
)
def test_colours_of_a_matrix_are_its_cosines_on_a_fixed_scale(
    client: httpx.Client, image_id: str, model: str, stage: str, variant: str, signed: bool
) -> None:
    query = {"id": image_id, "model": model, "stage": stage}
    matrix = np.array(client.get("/similarity", params=query).json()["matrix"][variant])
    canvas = canvas_of(png(client, "/similarity", query | {"variant": variant}))
    [found] = diagonals(canvas, signed=signed)
    expected = colours(matrix, signed=signed)
    assert np.abs(corners(found, BLOCKS) - expected).max() <= STEP


def test_all_variants_stand_beside_each_other(client: httpx.Client, image_id: str) -> None:
    query = {"id": image_id, "stage": "reattention"}
    matrices = client.get("/similarity", params=query).json()["matrix"]
    found = diagonals(canvas_of(png(client, "/similarity", query)), signed=True)
    assert len(found) == 3
    for variant, picture in zip(("column", "row", "centred"), found, strict=True):
        expected = colours(np.array(matrices[variant]), signed=True)
        assert np.abs(corners(picture, BLOCKS) - expected).max() <= STEP, variant


def test_softmax_adds_entropy_and_distance_below(client: httpx.Client, image_id: str) -> None:
    heights = {
        stage: len(canvas_of(png(client, "/similarity", {"id": image_id, "stage": stage})))
        for stage in ("softmax", "reattention")
    }
    assert heights["softmax"] > heights["reattention"] + 200


def test_the_title_of_a_picture_is_also_in_its_metadata(
    client: httpx.Client, image_id: str
) -> None:
    query = {"id": image_id, "model": VIT, "stage": "softmax", "threshold": "0.6"}
    similar = client.get("/similarity", params=query).json()["similar_blocks"]
    content = png(client, "/similarity", query)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.info.keys() == {"Title", "Description", "dpi"}  # no time, no version
        assert picture.info["Title"] == f"{VIT}, version 1, softmax stage"
        words = picture.info["Description"]
    assert f"image {image_id}" in words
    assert f"{similar['count']} of 15 blocks similar" in words
    assert "above 0.6" in words
    assert words.endswith(", ".join(map(str, similar["blocks"])))


@pytest.mark.parametrize("path", ["/attention-maps", "/similarity"])
def test_the_same_request_gets_the_same_bytes(
    client: httpx.Client, image_id: str, path: str
) -> None:
    first, second = (png(client, path, {"id": image_id}) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("path", "query"),
    [
        ("/similarity", {"format": "npy"}),
        ("/similarity", {"variant": "diagonal"}),
        ("/attention-maps", {"scale": "head"}),
    ],
)
def test_impossible_pictures_are_refused(
    client: httpx.Client, image_id: str, path: str, query: dict[str, str]
) -> None:
    response = client.get(path, params={"id": image_id, "format": "png"} | query)
    assert (response.status_code, response.json()["code"]) == (422, "invalid-request")


@pytest.mark.parametrize("path", ["/attention-maps", "/similarity"])
def test_pictures_are_documented(client: httpx.Client, path: str) -> None:
    responses = client.get("/openapi.json").json()["paths"][path]["get"]["responses"]
    assert {"application/json", "image/png"} <= responses["200"]["content"].keys()
    assert (
        "deadline-exceeded" in responses["504"]["content"]["application/problem+json"]["examples"]
    )
