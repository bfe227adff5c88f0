"""How far generated pictures are from real ones, by the features of a fixed network.

Both distances compare what MobileNetV2 sees (`trainer.metrics.mobilenet_v2`), and not Inception:
none of their numbers compares with an FID or KID of another paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from trainer.metrics import mobilenet_v2

Features = Callable[[np.ndarray], np.ndarray]

BLOCK = 1000
"""Pictures of a block of the kernel distance (Binkowski et al. 2018, section 4: subsets of 1,000;
here each picture is in one)."""


class Moments:
    """Mean and covariance of vectors that come in batches, none of which is kept.

    Args:
        size: numbers per vector.
    """

    def __init__(self, size: int):
        self.count = 0
        self.mean = np.zeros(size)
        self._scatter = np.zeros((size, size))

    def update(self, vectors: np.ndarray) -> None:
        """Takes in vectors [batch, size].

        Means are merged rather than sums and squares subtracted, which would lose the digits that
        differ (Chan, Golub and LeVeque 1983).
        """
        if not len(vectors):
            return
        vectors = np.asarray(vectors, np.float64)
        count, mean = len(vectors), vectors.mean(axis=0)
        centred = vectors - mean
        total, shift = self.count + count, mean - self.mean
        self._scatter += centred.T @ centred
        self._scatter += np.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased estimate, [size, size]; zero for a single vector."""
        return self._scatter / max(self.count - 1, 1)


def frechet_distance(
    mean: np.ndarray, covariance: np.ndarray, other_mean: np.ndarray, other_covariance: np.ndarray
) -> float:
    """Squared distance of two normal distributions (Dowson and Landau 1982).

    |m - n|^2 + tr(C) + tr(D) - 2 tr((C^1/2 D C^1/2)^1/2), where the last matrix is symmetric and
    its eigenvalues are those of CD: nothing becomes complex, however few the samples were.
    """
    values, vectors = np.linalg.eigh(covariance)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    product = root @ other_covariance @ root
    eigenvalues = np.linalg.eigvalsh((product + product.T) / 2.0)
    shared = float(np.sqrt(np.maximum(eigenvalues, 0.0)).sum())
    apart = float(np.square(mean - other_mean).sum())
    distance = apart + float(np.trace(covariance) + np.trace(other_covariance)) - 2.0 * shared
    return max(distance, 0.0)


def kernel_distance(vectors: np.ndarray, others: np.ndarray) -> float:
    """Squared maximum mean discrepancy under the kernel (x.y / size + 1)^3, without bias.

    Binkowski et al. 2018, https://arxiv.org/abs/1801.01401, section 4 and equation 4.

    Args:
        vectors: [n, size], n at least 2.
        others: [m, size], m at least 2.

    Returns:
        0 on average where both are samples of one distribution, and so below 0 for some.
    """

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        product: np.ndarray = x @ y.T / x.shape[1] + 1.0
        return product**3

    def among(x: np.ndarray) -> float:
        similar = kernel(x, x)
        return float(similar.sum() - np.trace(similar)) / (len(x) * (len(x) - 1))

    x, y = np.asarray(vectors, np.float64), np.asarray(others, np.float64)
    return among(x) + among(y) - 2.0 * float(kernel(x, y).mean())


class FrechetDistance:
    """Fréchet and kernel distance of generated pictures from the real ones of an evaluation.

    Reads `image` of the batch, [batch, height, width, 1 or 3], 0 to 255 if of integers and in
    [0, 1] otherwise, and `image` of the outputs in [0, 1]. There may be more of the one than of the
    other, or none. While there are as many, at most a block of pictures is kept.

    The Fréchet distance of finite samples is too large, by as much for every model that is scored
    on as many pictures: compare numbers of equal `examples` only. The kernel distance has no bias.

    Args:
        features: pictures to vectors.
        name: what the features are called in the names of the numbers.
    """

    def __init__(self, features: Features = mobilenet_v2.features, name: str = "mobilenetv2"):
        self._features = features
        self._name = name
        self._waiting: dict[str, list[np.ndarray]] = {"real": [], "generated": []}
        self._moments: dict[str, Moments] = {}
        self._kernel_distances: list[tuple[float, int]] = []

    def update(self, batch: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> None:
        """Takes in one batch of real pictures and one of generated ones."""
        for kind, images in (("real", batch["image"]), ("generated", outputs["image"])):
            if len(images):
                self._waiting[kind].append(as_unit(images))
        if min(sum(map(len, images)) for images in self._waiting.values()) >= BLOCK:
            self._settle()

    def result(self) -> dict[str, float]:
        """`frechet_distance_<name>`, `kernel_distance_<name>` times 1,000.

        Nothing, where there were no pictures of one of the two kinds.
        """
        self._settle()
        if len(self._moments) < 2:
            return {}
        real, generated = self._moments["real"], self._moments["generated"]
        blocks = [(value, count) for value, count in self._kernel_distances if count > 1]
        numbers = {
            f"frechet_distance_{self._name}": frechet_distance(
                real.mean, real.covariance, generated.mean, generated.covariance
            )
        }
        if blocks:
            mean = float(np.average([v for v, _ in blocks], weights=[n for _, n in blocks]))
            numbers[f"kernel_distance_{self._name}"] = 1000.0 * mean
        return numbers

    def _settle(self) -> None:
        """Looks at the pictures that wait, as one block."""
        seen = {k: self._features(np.concatenate(v)) for k, v in self._waiting.items() if v}
        for kind, vectors in seen.items():
            self._moments.setdefault(kind, Moments(vectors.shape[1])).update(vectors)
            self._waiting[kind] = []
        count = min(map(len, seen.values())) if len(seen) == 2 else 0
        if count > 1:
            distance = kernel_distance(seen["real"], seen["generated"])
            self._kernel_distances.append((distance, count))


def as_unit(images: np.ndarray) -> np.ndarray:
    """Pictures as float32 in [0, 1]: integers are taken as 0 to 255."""
    images = np.asarray(images)
    if np.issubdtype(images.dtype, np.integer):
        return images.astype(np.float32) / np.float32(255.0)
    return images.astype(np.float32)
