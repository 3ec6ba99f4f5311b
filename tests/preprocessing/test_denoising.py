import numpy as np

from halebrain.preprocessing.intensity import curvature_flow


def test_noise_falls_and_a_step_edge_stays(rng):
    clean = np.zeros((24, 24, 24), np.float32)
    clean[12:] = 100
    noisy = (clean + rng.normal(0, 5, clean.shape)).astype(np.float32)
    before = noisy.copy()
    smooth = curvature_flow(noisy, iterations=3)
    assert smooth[2:10].std() < 0.85 * noisy[2:10].std()
    # Means on both sides of the edge, one voxel away from it.
    assert abs(smooth[10].mean()) < 5
    assert abs(smooth[13].mean() - 100) < 5
    np.testing.assert_array_equal(noisy, before)
