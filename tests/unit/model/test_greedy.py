"""Greedy reports of the model itself."""

from __future__ import annotations

import torch

from lmrrg.model.generator import ReportGenerator
from lmrrg.model.greedy import greedy_reports
from lmrrg.model.prompts import prompt_ids
from lmrrg.vision.study_features import StudyFeatures


def by_teacher_forcing(
    model: ReportGenerator, features: StudyFeatures, prompt: list[int], tokens: int
) -> list[int]:
    """Write one report without a cache: all that was written goes through the model again."""
    ids: list[int] = []
    while len(ids) < tokens and (not ids or ids[-1] != model.tokenizer.eos_token_id):
        # The last id is a place-holder: its logits are those of the next token.
        report = torch.tensor([[*ids, 0]])
        with torch.no_grad():
            out = model.report_logits(features, [prompt], report, report >= 0)
        ids.append(int(out.logits[0, -1].argmax()))
    return ids


def test_each_report_is_the_most_probable_token_after_token(
    model: ReportGenerator, features: StudyFeatures
):
    config = model.config.model_copy(update={"use_indication": True})
    texts = ("", "Cough.", "Shortness of breath.", "")
    prompts = [prompt_ids(model.tokenizer, config, text) for text in texts]
    written = greedy_reports(model, features, prompts, 12)
    for row, prompt in enumerate(prompts):
        ids = by_teacher_forcing(model, features.select([row]), prompt, 12)
        assert written[row] == model.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_a_report_ends_with_eos_while_others_go_on(model: ReportGenerator, features: StudyFeatures):
    tokenizer = model.tokenizer
    prompts = [prompt_ids(tokenizer, model.config, "")] * 4
    ids = [by_teacher_forcing(model, features.select([row]), prompts[0], 12) for row in range(4)]
    # A token that the first report has early becomes the end of all reports.
    tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ids[0][2])
    end = ids[0][2]
    assert {end in of_report for of_report in ids} == {True, False}
    written = greedy_reports(model, features, prompts, 12)
    for row, whole in enumerate(ids):
        kept = whole[: whole.index(end)] if end in whole else whole
        # Whether the end itself is printed is the tokenizer's business.
        with_end = [*kept, end] if end in whole else kept
        allowed = {tokenizer.decode(one).strip() for one in (kept, with_end)}
        assert written[row] in allowed
