"""Features -> their first principal components, for the map of FiftyOne and TensorBoard's tab.

N images, D feature width, K components.
"""

from __future__ import annotations

import numpy as np


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

    centred_ND = x_ND.astype(np.float64) - x_ND.mean(axis=0, dtype=np.float64)
    width = x_ND.shape[1]
    indices = (max(width - count, 0), width - 1)  # eigenvalues ascend
    _, loading_DK = eigh(centred_ND.T @ centred_ND, subset_by_index=indices)
    largest_K = np.abs(loading_DK).argmax(axis=0)
    loading_DK *= np.sign(loading_DK[largest_K, range(len(largest_K))])
    return centred_ND @ loading_DK[:, ::-1]
