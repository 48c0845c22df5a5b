"""Points of many dimensions onto two: UMAP, or PCA when asked for by name."""

import importlib
import importlib.util
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alm.data.example import DataError

Points = NDArray[np.floating[Any]]
MIN_POINTS = 8


def project(points: Points, method: str = "umap", seed: int = 0, neighbours: int = 15) -> NDArray[np.float32]:
    """Coordinates `(N, 2)` of points `(N, D)`; the same seed gives the same ones.

    `"umap"` (McInnes et al., 2018) by cosine distance, from the package umap-learn; `"pca"` by the two main axes of the centred
    points. Raises `DataError` for another method, too few points, or a package that is not installed: never one for the other.
    """
    if method not in ("umap", "pca"):
        raise DataError(f"--method is umap or pca, got {method!r}")
    if len(points) < MIN_POINTS:
        raise DataError(f"{len(points)} points cannot be arranged; at least {MIN_POINTS} are needed")
    return _umap(points, seed, neighbours) if method == "umap" else _pca(points)


def _umap(points: Points, seed: int, neighbours: int) -> NDArray[np.float32]:
    if importlib.util.find_spec("umap") is None:
        raise DataError("umap-learn is not installed: pip install 'umap-learn>=0.5.7', or --method pca")
    umap = importlib.import_module("umap")
    reducer = umap.UMAP(
        n_neighbors=min(neighbours, len(points) - 1),
        metric="cosine",
        random_state=seed,
        n_jobs=1,  # more threads would give other coordinates each time
        init="pca",  # the spectral start fails on a few points and needs an eigensolver for many
    )
    return np.asarray(reducer.fit_transform(np.asarray(points, dtype=np.float32)), dtype=np.float32)


def _pca(points: Points) -> NDArray[np.float32]:
    centred = np.asarray(points, dtype=np.float64) - points.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    axes = axes[:2]
    # a singular vector's sign is arbitrary: its largest component is made positive
    axes *= np.sign(axes[np.arange(len(axes)), abs(axes).argmax(1)])[:, None]
    return (centred @ axes.T).astype(np.float32)


def centre_distances(
    coordinates: NDArray[np.float32], labels: list[str], kinds: list[str], first: str, second: str
) -> dict[str, float]:
    """Distance between the centres of two kinds of points (audio, text) of each label, in the coordinates' unit."""
    marks, tags = np.array(labels), np.array(kinds)
    distances = {}
    for label in dict.fromkeys(labels):
        sides = [coordinates[(marks == label) & (tags == kind)] for kind in (first, second)]
        if all(len(side) for side in sides):
            distances[label] = float(np.linalg.norm(sides[0].mean(0) - sides[1].mean(0)))
    return distances
