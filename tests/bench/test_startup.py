"""``pytest -m bench``: the front door and answers are as quick as they should be, in the short form of the script."""

import json

import pytest

from tests import miniature
from tests.bench import startup


@pytest.mark.bench
def test_the_front_door_and_answers_are_within_their_limits(capsys: pytest.CaptureFixture[str]) -> None:
    startup.main([str(miniature.finished().root), "--short", "--json"])
    results = json.loads(capsys.readouterr().out)["results"]
    limited = [result for result in results if "limit" in result]
    assert len(limited) == len(startup.LIMITS)
    for result in limited:
        assert result.get("ratio", result.get("value")) < result["limit"], result
