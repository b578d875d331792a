"""``pytest -m bench``: a dataset of the real shape loads and is batched within its limits."""

import json
import sys

import pytest

from tests.bench.full_size import LIMITS, run
from tests.bench.stand_in import RELEASE


@pytest.mark.bench
@pytest.mark.skipif(not RELEASE.is_dir(), reason=f"the released Meta-VQA files are not in {RELEASE}")
def test_the_real_shape_is_within_its_limits() -> None:
    results = json.loads(run([sys.executable, "-m", "tests.bench.full_size"]))["results"]
    values = {result["subject"]: result["value"] for result in results}
    assert all(values[name] < limit for name, limit in LIMITS.items()), values
