"""The rules: what is wrong between two statements, within a sentence, among the sentences."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from lmrrg.metrics.coherence.fault import Cut, Fault, FaultKind
from lmrrg.metrics.coherence.statements import (
    Statement,
    coherence_lexicon,
    content_of,
    is_bare_denial,
    is_exact_place,
    is_limited,
    is_reference,
    whole_sentence,
)
from lmrrg.metrics.embedded.claim_lexicon import claim_lexicon
from lmrrg.metrics.embedded.claims import share_place
from lmrrg.metrics.embedded.lexicon import DEVICE, OBSERVATION, STATE
from lmrrg.metrics.embedded.sentences import ABSENT, PRESENT, Sentence

_PLACEHOLDER = "xxxx"
"""What stands for a word that was taken out of a report to hide who it is about."""
_TELLING = frozenset([OBSERVATION, DEVICE, STATE])
_SHORTEST_RUN = 2
_LONGEST_RUN = 12
"""Words of the runs whose immediate repetition is looked for."""
_JOINTS = frozenset([",", "and", "with", "but", "no", "without", "there"])
"""Words at which a sentence is cut between two findings."""
_VIEWS = frozenset(["lateral", "decubitus", "view", "greater", "more", "or", "than", "to"])
"""Words after a side that show that it is no finding's side, or not its only one."""
_ONE_SIDE = frozenset(["left", "right"])
_ATTRIBUTES_TOO = frozenset(["the", "a", "an", "sided", "pleural", "pulmonary"])
"""Words, beside attributes, that a noun phrase may have before its noun."""


def faults_of_pairs(statements: Sequence[Statement]) -> Iterator[Fault]:
    """Yield the faults between two statements of one finding at one place."""
    rules = coherence_lexicon()
    for a, b in combinations(statements, 2):
        if a.claim.finding != b.claim.finding or a.noun != b.noun:
            continue
        # Within a sentence, an organ and its enlargement are two mentions of one statement.
        is_one_statement = a.claim.mention == b.claim.mention or a.claim.finding in rules.organs
        if a.sentence == b.sentence and is_one_statement:
            continue
        kind = _pair_kind(a, b) if share_place(a.claim, b.claim) else None
        if kind:
            yield Fault(kind, a.claim.finding, _cuts_of_pair(a, b))


def _pair_kind(a: Statement, b: Statement) -> FaultKind | None:
    """Return what is wrong with two statements of one finding at one place, if anything."""
    assertions = {a.claim.assertion, b.claim.assertion}
    if assertions == {PRESENT, ABSENT}:
        denied, stated = (a, b) if a.claim.assertion == ABSENT else (b, a)
        return "contradicted" if _contradict(denied, stated) else None
    if ABSENT in assertions:
        return "repeated" if a.sentence == b.sentence and is_bare_denial(a) else None
    if not a.is_single and not is_exact_place(a.claim, b.claim):
        return None
    if a.claim.severity and b.claim.severity and a.claim.severity != b.claim.severity:
        return "exclusive"
    return "stated_twice" if assertions == {PRESENT} and _is_said_again(a, b) else None


def _contradict(denied: Statement, stated: Statement) -> bool:
    is_vague = stated.claim.finding in coherence_lexicon().vague
    return not (is_vague or is_limited(denied) or is_reference(stated))


def _is_said_again(a: Statement, b: Statement) -> bool:
    """Return whether a later sentence states a finding once more, instead of speaking of it."""
    if a.sentence == b.sentence or is_reference(b):
        return False
    before = content_of(a.read)
    after = content_of(b.read)
    # There may be two nodules in one place, of which each sentence says something else.
    return a.is_single or before <= after or after <= before


def _cuts_of_pair(a: Statement, b: Statement) -> tuple[Cut, Cut]:
    if a.sentence != b.sentence:
        return a.whole, b.whole
    start = a.claim.mention[-1] + 1
    end = b.claim.mention[0]
    middle = next((i for i in range(start, end) if a.read.words[i] in _JOINTS), start)
    return Cut(a.sentence, 0, middle), Cut(a.sentence, middle, len(a.read.words))


def against_clear_lungs(
    reads: Sequence[Sentence], statements: Sequence[Statement]
) -> Iterator[Fault]:
    """Yield the findings that a report with clear lungs states nevertheless."""
    clear = [number for number, read in enumerate(reads) if _calls_lungs_clear(read)]
    if not clear:
        return
    for statement in statements:
        claim = statement.claim
        if claim.assertion == PRESENT and claim.finding in coherence_lexicon().against_clear_lungs:
            cuts = (whole_sentence(clear[0], reads[clear[0]]), statement.whole)
            if not is_reference(statement) and clear[0] != statement.sentence:
                yield Fault("contradicted", claim.finding, cuts)


def _calls_lungs_clear(read: Sentence) -> bool:
    """Return whether a sentence calls both lungs clear, without a limit and of everything."""
    words = read.words
    if "clear" not in words or "lungs" not in words:
        return False
    i = words.index("clear")
    is_bare = coherence_lexicon().limits.isdisjoint(words) and _ONE_SIDE.isdisjoint(words)
    return is_bare and read.assertions[i] == PRESENT and words[i + 1 : i + 2] != ("of",)


def repeated_sentences(
    reads: Sequence[Sentence], stated: Sequence[Sequence[Statement]]
) -> Iterator[Fault]:
    """Yield the sentences that say what was said before, in the same or in other words."""
    if any(not coherence_lexicon().other_films.isdisjoint(read.words) for read in reads):
        return
    first: dict[Hashable, int] = {}
    for number, (read, own) in enumerate(zip(reads, stated, strict=True)):
        said = _sayings(read, own)
        earlier = [first[saying] for saying in said.whole if saying in first]
        if said.denials and all(denial in first for denial in said.denials):
            earlier.append(max(first[denial] for denial in said.denials))
        if earlier:
            yield Fault(
                "repeated",
                "",
                (whole_sentence(earlier[0], reads[earlier[0]]), whole_sentence(number, read)),
            )
        for saying in (*said.whole, *said.denials):
            first.setdefault(saying, number)


class _Sayings(NamedTuple):
    """What a sentence says, in forms that are equal where two sentences say the same."""

    whole: Sequence[Hashable]
    """The whole sentence: its words, and the meanings of its words."""
    denials: Sequence[Hashable]
    """Each finding that it denies, where it does nothing else."""


def _sayings(read: Sentence, own: Sequence[Statement]) -> _Sayings:
    content = content_of(read)
    if len(content) < 2 and not own:  # "unchanged": about whatever stood before
        return _Sayings([], [])
    # A placeholder hides a word that may make all the difference.
    whole: list[Hashable] = [read.words]
    if _PLACEHOLDER not in read.words:
        whole.append(content)
    is_denial = all(map(is_bare_denial, own))
    return _Sayings(whole, [(s.noun, s.claim.sides) for s in own] if is_denial else [])


def repeated_runs(number: int, read: Sentence) -> Iterator[Fault]:
    """Yield the first run of words that follows on itself: "no effusion no effusion"."""
    words = read.words
    if len(set(words)) == len(words):  # half of the sentences
        return
    for start in range(len(words)):
        longest = min(_LONGEST_RUN, (len(words) - start) // 2)
        for length in range(_SHORTEST_RUN, longest + 1):
            end = start + length
            run = words[start:end]
            if run != words[end : end + length] or _TELLING.isdisjoint(read.kinds[start:end]):
                continue
            last = end + length
            while words[last : last + length] == run:
                last += length
            yield Fault("repeated", "", (Cut(number, end, last),))
            return


def impossible(number: int, read: Sentence, own: Sequence[Statement]) -> Iterator[Fault]:
    """Yield devices inside findings, findings inside devices, and places that nobody has."""
    for a, b in combinations(own, 2):
        inside = _inside(a, b)
        if inside is not None:
            cuts = (Cut(number, 0, inside), Cut(number, inside, len(read.words)))
            yield Fault("impossible", a.claim.finding, cuts)
    text = " ".join(read.words)
    if any(place in text for place in coherence_lexicon().no_such_place):
        yield Fault("impossible", "", (whole_sentence(number, read),))


def _inside(inner: Statement, outer: Statement) -> int | None:
    """Return the index of the word that puts a device into a finding, or a finding into a device.

    None where the two do not exclude each other, or the sentence says something else of them.
    """
    rules = coherence_lexicon()
    devices = rules.devices
    findings = rules.no_place_for_devices
    a, b = inner.claim.finding, outer.claim.finding
    exclude = (a in devices and b in findings) or (a in findings and b in devices)
    if not exclude or outer.claim.assertion == ABSENT:
        return None
    words = inner.read.words
    start = inner.claim.mention[-1] + 1
    end = outer.claim.mention[0]
    inside = max((i for i in range(start, end) if words[i] in rules.inside), default=None)
    if inside is None or not _JOINTS.isdisjoint(words[start:end]):
        return None
    # "In the SVC over an effusion": what is inside is something else.
    others = set(words[inside + 1 : end]) - claim_lexicon().attributes - _ATTRIBUTES_TOO
    return None if others else inside


def on_both_sides(own: Sequence[Statement]) -> Iterator[Fault]:
    """Yield a single finding that one phrase puts on both sides: "left effusion on the right"."""
    for statement in own:
        claim = statement.claim
        words = statement.read.words
        if not statement.is_single or claim.assertion == ABSENT:
            continue
        sides = [i for i in claim.attributes if words[i] in _ONE_SIDE]
        if not _ONE_SIDE.issubset([words[i] for i in sides]):
            continue
        span_words = set(words[sides[0] : sides[-1] + 2])
        if span_words.isdisjoint(_JOINTS | _VIEWS):
            cuts = tuple([Cut(statement.sentence, i, i + 1) for i in (sides[0], sides[-1])])
            yield Fault("exclusive", claim.finding, cuts)
