"""Masters that are valid and rare come out as the arrays that they were written from."""

from __future__ import annotations

import numpy as np
import pytest

from tests.sweep import odd_inputs, pictures
from tests.sweep.differential import ours
from tests.sweep.pictures import Input

pytestmark = pytest.mark.service  # opj_compress is a process


@pytest.fixture(scope="module")
def inputs() -> list[Input]:
    return list(odd_inputs.inputs())


def test_each_comes_out_right(inputs: list[Input]) -> None:
    faults = []
    for it in inputs:
        assert it.pixels is not None
        wanted = pictures.on_white(it.pixels)
        try:
            shown = ours(it.data)
        except Exception as error:
            faults.append(f"{it.name}: {error!r}"[:300])
            continue
        if shown.shape != wanted.shape:
            faults.append(f"{it.name}: {shown.shape} instead of {wanted.shape}")
            continue
        difference = np.abs(shown - wanted)
        if difference.max() > it.tolerance or difference.mean() > it.mean_tolerance:
            faults.append(f"{it.name}: largest difference {difference.max():.0f}, mean {difference.mean():.2f}")
    assert not faults, "\n".join([f"{len(faults)} of {len(inputs)}", *faults])
