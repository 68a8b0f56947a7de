"""Whether a reference supports what an edit says."""

from __future__ import annotations

from functools import cache

from lmrrg.metrics.embedded.analysis import analyse_reports
from lmrrg.metrics.embedded.claims import claim_lexicon
from lmrrg.metrics.embedded.sentences import ABSENT


@cache
def _statements(text: str) -> tuple[frozenset[tuple[str, bool]], frozenset[tuple[str, str]]]:
    """Return the (finding, whether it is denied) and the meanings that a text states."""
    (analysis,) = analyse_reports([text])
    claims = [(str(finding), claim) for finding, claim in analysis.claims.items()]
    stated = frozenset((finding, claim[0].assertion == ABSENT) for finding, claim in claims)
    return stated, frozenset(analysis.graph.meanings)


@cache
def is_supported(said: str, reference: str) -> bool:
    """Return whether a reference supports what an edit says, at least in part."""
    claims, meanings = _statements(said)
    true_claims, true_meanings = _statements(reference)
    if claims & true_claims:
        return True
    return bool(meanings) and 2 * len(meanings & true_meanings) >= len(meanings)


@cache
def names_its_finding(said: str, reference: str) -> bool:
    """Return whether a sentence names a relative of a finding that the reference affirms.

    What the reference supports counts as well.
    """
    kin = claim_lexicon().kin
    claims, _ = _statements(said)
    true_claims, _ = _statements(reference)
    affirmed = {kin[finding] for finding, is_denied in true_claims if not is_denied}
    return any(kin[finding] in affirmed for finding, _ in claims) or is_supported(said, reference)
