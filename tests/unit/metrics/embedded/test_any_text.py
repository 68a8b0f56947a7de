"""The rule-based backend scores any text that a policy may write, and every score is in range."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrrg.metrics.embedded.backend import EmbeddedBackend

WORDS = (  # noqa: SIM905 (reads as a text)
    "the heart is normal in size there no pleural effusion or pneumothorax , . and with of left "
    "right small large "
    "without evidence to suggest versus may represent opacity lungs are clear not 2 cm xxxx ; - 3.5"
).split()
WORD_SALAD = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)
ANY_TEXT = WORD_SALAD | st.text(max_size=80)
BACKEND = EmbeddedBackend()


@settings(max_examples=400, deadline=None)
@given(hypothesis_text=ANY_TEXT, reference=ANY_TEXT)
def test_any_pair_has_scores_in_range(hypothesis_text, reference):
    parts = BACKEND.score([hypothesis_text], [reference])
    for name in ("rg_e", "rg_er", "rg_bar_er", "radgraph", "bleu2"):
        assert 0 <= getattr(parts, name)[0] <= 1 + 1e-9, name
    assert np.isfinite(parts.bertscore[0])
    assert -1 <= parts.semb[0] <= 1 + 1e-9


@settings(max_examples=200, deadline=None)
@given(text=WORD_SALAD)
def test_a_text_is_like_itself(text):
    parts = BACKEND.score([text], [text])
    assert (
        parts.rg_e[0] == pytest.approx(1) or parts.rg_e[0] == 0
    )  # 0 only where no entity is found
    assert parts.bertscore[0] == pytest.approx(1) or parts.bertscore[0] == 0
