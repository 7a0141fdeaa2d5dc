"""Features -> their first principal components, for the map of FiftyOne and TensorBoard's tab.

N images, B of a block, D feature width, K components.
"""

from __future__ import annotations

import numpy as np

BLOCK_VALUES = 2**24  # float64 values in memory together: 21,845 images of 768 features


def principal_components(x_ND: np.ndarray, count: int) -> np.ndarray:
    """Project features onto their first principal components, in float64.

    As `sklearn.decomposition.PCA(svd_solver="covariance_eigh")`, but scikit-learn takes a second to
    import. The largest loading of a component is positive.

    Args:
        count: number of components K; at most D are returned.

    Returns:
        x_NK, centred.
    """
    from scipy.linalg import eigh

    mean_D, width = x_ND.mean(axis=0, dtype=np.float64), x_ND.shape[1]
    step = max(1, BLOCK_VALUES // width)
    starts = range(0, len(x_ND), step)

    def centred(start: int) -> np.ndarray:
        return x_ND[start : start + step].astype(np.float64) - mean_D

    scatter_DD = sum((block_BD.T @ block_BD for block_BD in map(centred, starts)), np.zeros(()))
    indices = (max(width - count, 0), width - 1)  # eigenvalues ascend
    _, loading_DK = eigh(scatter_DD, subset_by_index=indices)
    largest_K = np.abs(loading_DK).argmax(axis=0)
    loading_DK *= np.sign(loading_DK[largest_K, range(len(largest_K))])
    return np.concatenate([centred(start) @ loading_DK[:, ::-1] for start in starts])
