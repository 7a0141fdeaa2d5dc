"""Calibration error by hand."""

import numpy as np
import pytest

from fgvc.metrics import expected_calibration_error


def test_by_hand():
    confidence_N = np.array([0.9, 0.91, 0.31, 1.0])
    right_N = np.array([True, False, False, True])
    # .9 and .91 share a bin: |1 - 1.81|; .31 alone: .31; 1.0 alone: 0.
    assert expected_calibration_error(confidence_N, right_N) == pytest.approx((0.81 + 0.31) / 4)


def test_opposite_errors_in_one_bin_cancel_and_in_two_do_not():
    right_N = np.array([True, False])
    assert expected_calibration_error(np.array([0.5, 0.5]), right_N) == pytest.approx(0.0)
    assert expected_calibration_error(np.array([0.5, 0.6]), right_N) == pytest.approx(0.55)


def test_no_image():
    assert expected_calibration_error(np.zeros(0), np.zeros(0, bool)) == 0.0
