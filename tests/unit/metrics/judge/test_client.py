"""The judge: its answers become scores, and whatever goes wrong becomes a missing one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from lmrrg.config.reward import JudgeConfig, RewardConfig, RewardParts
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.judge.answer import Answer, answer_schema, parse_answer
from lmrrg.metrics.judge.client import Judge
from lmrrg.metrics.reward import RadCliQReward

REFERENCE = "Small left effusion. No pneumothorax."
PERFECT = '{"matched": 2, "errors": []}'
HALF = '{"matched": 1, "errors": [{"category": "location", "significance": "urgent"}]}'


def judge_of(fake: Any, **settings: Any) -> Judge:
    return Judge(JudgeConfig(**{"url": fake.url, "model": "m", "cache": None} | settings))


def user_text(request: dict[str, Any]) -> str:
    return request["messages"][-1]["content"]


def test_an_answer_is_worth_its_matches_and_weighted_errors() -> None:
    kinds = ["urgent", "actionable", "minor", "harmless"]
    errors = [{"category": "severity", "significance": kind} for kind in kinds]
    assert Answer(matched=7, errors=errors).score == pytest.approx(7 / 8.75)
    assert parse_answer(HALF).score == 0.5
    assert parse_answer(f"Sure:\n```json\n{PERFECT}\n```").score == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I cannot judge this.",
        "{",
        '{"matched": -1, "errors": []}',
        '{"matched": 2.5, "errors": []}',
        '{"matched": true, "errors": []}',
        '{"matched": 1}',
        '{"matched": 1, "errors": [], "score": 1}',
        '{"matched": 1, "errors": [{"category": "typo", "significance": "minor"}]}',
        '{"matched": 1, "errors": [{"category": "severity", "significance": 0.3}]}',
    ],
)
def test_an_invalid_answer_is_none(text: str) -> None:
    assert parse_answer(text) is None


def test_the_judge_is_asked_with_both_reports_and_the_schema(fake_judge: Any) -> None:
    with fake_judge(lambda request: PERFECT) as fake:
        scores = judge_of(fake).score(["Small left effusion."], [REFERENCE])
    assert scores.tolist() == [1]
    (request,) = fake.requests
    assert REFERENCE in user_text(request)
    assert request["model"] == "m"
    assert request["temperature"] == 0
    assert request["response_format"]["json_schema"]["schema"] == answer_schema()
    # Every category of the schema is explained to the judge.
    categories = answer_schema()["$defs"]["JudgedError"]["properties"]["category"]["enum"]
    assert all(f"- {category}:" in request["messages"][0]["content"] for category in categories)


def test_many_are_asked_at_a_time_and_each_pair_once(fake_judge: Any) -> None:
    reports = [f"Nodule of {i} mm." for i in range(12)]
    with fake_judge(lambda request: HALF if "of 3 mm" in user_text(request) else PERFECT) as fake:
        scores = judge_of(fake, batch=4).score(reports * 2, [REFERENCE] * 24)
    assert len(fake.requests) == 12
    assert 1 < fake.most_open <= 4
    assert scores.tolist() == [0.5 if i % 12 == 3 else 1.0 for i in range(24)]


def test_an_empty_report_is_worth_nothing_and_an_empty_reference_unknown(fake_judge: Any) -> None:
    with fake_judge(lambda request: PERFECT) as fake:
        scores = judge_of(fake).score(["", "Effusion."], [REFERENCE, " "])
    assert scores[0] == 0
    assert np.isnan(scores[1])
    assert not fake.requests


def test_whatever_goes_wrong_is_missing_and_counted(
    fake_judge: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(request: dict[str, Any]) -> str | int:
        text = user_text(request)
        if "slow" in text:
            time.sleep(0.6)
        return 500 if "broken" in text else "Well." if "chatty" in text else PERFECT

    with fake_judge(answer) as fake:
        judge = judge_of(fake, timeout_s=0.3)
        scores = judge.score(["slow", "broken", "chatty", "fine"], [REFERENCE] * 4)
    assert np.isnan(scores).tolist() == [True, True, True, False]
    assert "3 reports without a score" in caplog.text
    for reason in ("1 timed out", "1 refused (500)", "1 unparsable"):
        assert reason in caplog.text
    assert "effusion" not in caplog.text
    # An overloaded server is asked once more, a slow one is not.
    asked = [text for request in fake.requests for text in [user_text(request)]]
    assert sum("broken" in text for text in asked) == 2
    assert sum("slow" in text for text in asked) == 1


def test_an_endpoint_that_is_not_there_is_missing(fake_judge: Any) -> None:
    with fake_judge(lambda request: PERFECT) as fake:
        pass
    assert np.isnan(judge_of(fake).score(["Effusion."], [REFERENCE])).all()


def test_an_endpoint_that_knows_no_schema_is_asked_without(fake_judge: Any) -> None:
    with fake_judge(lambda request: 400 if "response_format" in request else PERFECT) as fake:
        judge = judge_of(fake, batch=1)
        assert judge.score(["A nodule.", "A mass."], [REFERENCE] * 2).tolist() == [1, 1]
    assert ["response_format" in request for request in fake.requests] == [True, False, False]


def test_answers_are_kept_without_the_texts(fake_judge: Any, tmp_path: Path) -> None:
    with fake_judge(lambda request: HALF) as fake:
        assert judge_of(fake, cache=tmp_path).score(["A nodule."], [REFERENCE]).tolist() == [0.5]
        again = judge_of(fake, cache=tmp_path)
        assert again.score(["A nodule."], [REFERENCE]).tolist() == [0.5]
        assert len(fake.requests) == 1
        judge_of(fake, cache=tmp_path, model="other").score(["A nodule."], [REFERENCE])
        again.score(["A mass."], [REFERENCE])
        assert len(fake.requests) == 3
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) == 3
    assert all(json.loads(path.read_text()) == json.loads(HALF) for path in files)


def test_what_is_missing_is_not_kept_and_damage_is_mended(fake_judge: Any, tmp_path: Path) -> None:
    replies = iter(["rubbish", PERFECT, HALF])
    with fake_judge(lambda request: next(replies)) as fake:
        judge = judge_of(fake, cache=tmp_path)
        assert np.isnan(judge.score(["A nodule."], [REFERENCE])).all()
        assert judge.score(["A nodule."], [REFERENCE]).tolist() == [1]
        (kept,) = [path for path in tmp_path.rglob("*") if path.is_file()]
        kept.write_text("{")
        assert judge.score(["A nodule."], [REFERENCE]).tolist() == [0.5]


def test_the_key_comes_from_the_environment(
    fake_judge: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "secret")
    with fake_judge(lambda request: PERFECT) as fake:
        judge_of(fake, api_key_env="JUDGE_KEY").score(["A nodule."], [REFERENCE])
        judge_of(fake).score(["A nodule."], [REFERENCE])
        assert fake.keys == ["Bearer secret", None]
        monkeypatch.delenv("JUDGE_KEY")
        with pytest.raises(MetricError, match="judge_key_missing"):
            judge_of(fake, api_key_env="JUDGE_KEY")


def test_the_reward_adds_the_judge_and_masks_what_it_left_out(fake_judge: Any) -> None:
    with fake_judge(lambda r: "?" if "Mild edema" in user_text(r) else HALF) as fake:
        judge = JudgeConfig(url=fake.url, model="m", cache=None)
        settings = RewardConfig(parts=RewardParts(radcliq=1, judge=0.6), judge=judge)
        reports = ["Small left effusion.", "Mild edema.", ""]
        scores = RadCliQReward(settings).score(reports, [REFERENCE] * 3, None, [True] * 3)
    plain = RadCliQReward(RewardConfig()).score(reports, [REFERENCE] * 3, None, [True] * 3)
    assert scores.valid.tolist() == [True, False, True]
    assert scores.judge_missing.tolist() == [False, True, False]
    assert scores.reward[0] == pytest.approx(plain.reward[0] + 0.3)
    assert scores.reward[2] == plain.reward[2]
    assert not plain.judge_missing.any()
    assert np.isnan(plain.judge).all()


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        ({}, "needs reward.judge.url"),
        ({"url": "http://x/v1"}, "needs reward.judge.url and reward.judge.model"),
        ({"url": "http://x/v1", "model": "m", "timeout_s": 60}, "longer than reward.timeout_s"),
    ],
)
def test_a_judge_that_cannot_work_is_refused(judge: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RewardConfig.model_validate({"parts": {"judge": 1}, "judge": judge})
