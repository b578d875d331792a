"""Two processes are measured beside one."""

import json

import pytest

from tests import miniature
from tests.bench import distributed


@pytest.mark.bench
def test_two_processes_are_measured_beside_one(capsys: pytest.CaptureFixture[str]) -> None:
    distributed.main([str(miniature.finished().root), "ldm", "--short", "--json"])
    found = {result["subject"]: result for result in json.loads(capsys.readouterr().out)["results"]}
    assert found["HyperLDM, two processes to one"]["ratio"] > 0
    assert found["HyperLDM, exchange of gradients"]["value"] < 100
