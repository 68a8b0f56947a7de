"""Sentences of references in samples that all miss a finding."""

import pytest

from lmrrg.config.loading import load_config
from lmrrg.config.ppo import PPOConfig
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.model.decoder import train_tokenizer
from rl.credit.reference_sentences import EditedReport, ReferenceSentences, missed_sentence
from rl.credit.sentences import Sentences

HEART = "The heart is normal in size."
EFFUSION = "There is a large left pleural effusion."
NO_EFFUSION = "No pleural effusion is seen."
CLEAR = "The lungs are clear."
REFERENCE = f"{HEART} {EFFUSION} {CLEAR}"
LOG_PROB = -0.5


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([REFERENCE, NO_EFFUSION], vocabulary=300)


def report(tokenizer, text: str, finished: bool = True) -> GeneratedReport:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids += [tokenizer.eos_token_id] * finished
    return GeneratedReport(ids, [LOG_PROB] * len(ids), text, finished)


def edits(tokenizer, fraction: float = 1.0, max_tokens: int = 100) -> ReferenceSentences:
    return ReferenceSentences(tokenizer, Sentences(tokenizer, PPOConfig()), fraction, max_tokens)


def group(tokenizer, texts: list[str], **options) -> list[GeneratedReport]:
    samples = [report(tokenizer, text) for text in texts]
    return edits(tokenizer, **options).group(samples, REFERENCE, seed=[0])


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (f"{HEART} {CLEAR}", f"{HEART} {EFFUSION} {CLEAR}"),
        (f"{HEART} {NO_EFFUSION} {CLEAR}", f"{HEART} {EFFUSION} {CLEAR}"),
        (f"{NO_EFFUSION} {HEART}", f"{EFFUSION} {HEART}"),
        (HEART, f"{HEART} {EFFUSION}"),
        ("", EFFUSION),
    ],
)
def test_the_last_sample_gets_the_sentence_in_the_place_of_its_denial_or_where_it_belongs(
    tokenizer, last, expected
):
    first, edited = group(tokenizer, [CLEAR, last])
    assert not isinstance(first, EditedReport)
    assert isinstance(edited, EditedReport)
    assert edited.text == expected
    assert edited.finished
    assert edited.token_ids[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(edited.token_ids, skip_special_tokens=True).strip() == expected


def test_kept_tokens_keep_their_log_probs_and_the_sentence_was_written_for_certain(tokenizer):
    _, edited = group(tokenizer, [CLEAR, f"{HEART} {CLEAR}"])
    added = tokenizer(f" {EFFUSION}", add_special_tokens=False)["input_ids"]
    # The space before the next sentence is a token of its own here, which stays before it.
    heart = len(tokenizer(HEART, add_special_tokens=False)["input_ids"])
    assert edited.token_ids[heart : heart + len(added)] == added
    assert len(edited.logprobs) == len(edited.token_ids)
    kept = len(edited.token_ids) - heart - len(added)
    assert edited.logprobs == [LOG_PROB] * heart + [0.0] * len(added) + [LOG_PROB] * kept


@pytest.mark.parametrize(
    "texts", [[EFFUSION, CLEAR], [CLEAR, f"{HEART} {EFFUSION}"], [REFERENCE, REFERENCE]]
)
def test_where_one_sample_states_the_finding_nothing_is_edited(tokenizer, texts):
    assert [one.text for one in group(tokenizer, texts)] == texts


def test_a_cut_report_and_one_without_room_stay_as_they_are(tokenizer):
    cut = report(tokenizer, f"{HEART} There is", finished=False)
    clear = report(tokenizer, CLEAR)
    assert edits(tokenizer).group([clear, cut], REFERENCE, [0]) == [clear, cut]
    assert edits(tokenizer, max_tokens=12).group([cut, clear], REFERENCE, [0]) == [cut, clear]


def test_a_fraction_of_the_studies_is_edited_and_the_seed_decides_which(tokenizer):
    clear = report(tokenizer, CLEAR)
    half = edits(tokenizer, fraction=0.5)

    def edited() -> list[bool]:
        groups = [half.group([clear, clear], REFERENCE, [3, study]) for study in range(40)]
        return [isinstance(samples[-1], EditedReport) for samples in groups]

    assert edited() == edited()
    assert 10 < sum(edited()) < 30


def test_what_counts_as_missed():
    assert missed_sentence([CLEAR], HEART) is None
    assert missed_sentence([CLEAR], NO_EFFUSION) is None, "a denied finding cannot be missed"
    found = missed_sentence([CLEAR, NO_EFFUSION], "Heart normal.\n\nLarge left effusion")
    assert found is not None
    assert (found.finding, found.sentence) == ("Pleural Effusion", "Large left effusion.")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["ppo.algorithm=ppo"], "rloo and grpo"),
        (["ppo.algorithm=rloo", "ppo.old_log_probs=engine"], "old_log_probs=trainer"),
        (["ppo.algorithm=rloo", "ppo.correction=none"], "correction=token"),
        (["ppo.algorithm=rloo", "reward.shuffle_control=true"], "negative control"),
    ],
)
def test_settings_under_which_edits_would_not_be_exact_are_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        load_config(None, ["ppo.reference_sentences=0.5", *overrides])
