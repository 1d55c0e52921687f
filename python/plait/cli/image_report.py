"""A report on images: blurred, edges, histogram, statistics of tiles; and pictures of it.

This is ordinary Python with NumPy, written as if concurrency did not exist: one image in, one
report out, then a summary of all reports. `python -m plait demo` runs it on pools of every kind,
and takes it as it is.

An image is a square array of bytes, its brightness. Images are made here too, each from a number,
always the same.
"""

import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

type Image = NDArray[np.uint8]

SIDE = 1024
TILE = 32

RADIUS = 6
"""Of the blur, in pixels."""

ROWS = 4
"""How many images the pictures show."""


class ImageReport(TypedDict):
    """What is found in one image."""

    blurred: Image
    edges: Image
    histogram: list[int]
    mean: list[list[float]]  # of each tile, row by row
    deviation: list[list[float]]
    median: list[list[float]]


class Summary(TypedDict):
    """What is found in all of them."""

    images: int
    pixels: int
    brightness: float  # the mean of all
    darkest: int  # tile by its mean: the number of its image
    liveliest: int  # tile by its deviation: likewise
    edges: float  # share of pixels that lie on one


def make_image(number: int) -> Image:
    """Waves, discs and some noise."""
    random = np.random.default_rng(number)
    y, x = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32) / SIDE
    image = np.full((SIDE, SIDE), 128, np.float32)
    for _ in range(3):
        across, down = random.uniform(-20, 20, 2).astype(np.float32)
        image += 20 * np.sin(across * x + down * y)
    for _ in range(12):
        centre_x, centre_y, radius = random.uniform((0, 0, 0.02), (1, 1, 0.15)).astype(np.float32)
        image[(x - centre_x) ** 2 + (y - centre_y) ** 2 < radius**2] = random.uniform(20, 235)
    image += random.normal(0, 6, image.shape)
    return np.clip(image, 0, 255).astype(np.uint8)


def analyse_image(image: Image) -> ImageReport:
    """Report on one image."""
    blurred = _blur(image.astype(np.float32))
    edges = _edges(blurred)
    side = len(image) // TILE
    tiles = image.reshape(side, TILE, side, TILE).swapaxes(1, 2).reshape(side, side, TILE * TILE)
    return {
        "blurred": blurred.astype(np.uint8),
        "edges": np.clip(4 * edges, 0, 255).astype(np.uint8),
        "histogram": np.bincount(image.ravel(), minlength=256).tolist(),
        "mean": tiles.mean(2).tolist(),
        "deviation": tiles.std(2).tolist(),
        "median": np.median(tiles, 2).tolist(),
    }


def _blur(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Convolve with a Gaussian, first down, then across."""
    places = np.arange(-RADIUS, RADIUS + 1)
    weights = np.exp(-0.5 * (places / (RADIUS / 2)) ** 2).astype(np.float32)
    weights /= weights.sum()
    for _ in range(2):
        padded = np.pad(image, ((RADIUS, RADIUS), (0, 0)), "edge")
        image = np.zeros_like(image)
        for start, weight in enumerate(weights):
            image += weight * padded[start : start + len(image)]
        image = np.ascontiguousarray(image.T)
    return image


def _edges(image: NDArray[np.float32]) -> NDArray[np.floating]:
    """Sobel's gradient, its length in each pixel."""
    padded = np.pad(image, 1, "edge")
    down = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    across = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return np.hypot(down[:, 2:] - down[:, :-2], across[2:] - across[:-2]) / 4


def summarise(reports: Sequence[ImageReport]) -> Summary:
    """Sum up the reports on at least one image."""
    pixels = sum(report["blurred"].size for report in reports)
    histogram = np.sum([report["histogram"] for report in reports], 0)
    lowest = [np.min(report["mean"]) for report in reports]
    highest = [np.max(report["deviation"]) for report in reports]
    return {
        "images": len(reports),
        "pixels": pixels,
        "brightness": float(histogram @ np.arange(256) / pixels),
        "darkest": int(np.argmin(lowest)),
        "liveliest": int(np.argmax(highest)),
        "edges": float(np.mean([(report["edges"] > 64).mean() for report in reports])),
    }


# Pictures


def write_pictures(path: Path, images: Sequence[Image], reports: Sequence[ImageReport]) -> None:
    """Write a PNG of the first images: plain, blurred, their edges, their tiles' deviation."""
    rows = []
    for image, report in list(zip(images, reports, strict=True))[:ROWS]:
        tiles = np.clip(4 * np.array(report["deviation"]), 0, 255).astype(np.uint8)
        heat = tiles.repeat(TILE, 0).repeat(TILE, 1)
        rows.append(np.hstack([image, report["blurred"], report["edges"], heat]))
    path.write_bytes(encode_png(np.vstack(rows)[::2, ::2]))


def encode_png(image: Image) -> bytes:
    """Encode an image of any shape, losing nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        sum_of = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", sum_of)

    height, width = image.shape
    lines = np.zeros((height, width + 1), np.uint8)  # each line begins with its filter: none
    lines[:, 1:] = image
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)  # 8 bits of grey
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(lines.tobytes(), 6))
        + chunk(b"IEND", b"")
    )
