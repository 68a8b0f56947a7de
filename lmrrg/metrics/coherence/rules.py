"""The rules: what is wrong between two statements, within a sentence, among the sentences."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from lmrrg.metrics.coherence.fault import Cut, Fault, FaultKind
from lmrrg.metrics.coherence.statements import (
    PLACEHOLDER,
    SIDES,
    Statement,
    coherence_lexicon,
    content_of,
    is_bare_denial,
    is_exact_place,
    is_limited,
    is_reference,
    located,
    whole_sentence,
)
from lmrrg.metrics.embedded.claim_lexicon import claim_lexicon
from lmrrg.metrics.embedded.claims import Claim, share_place
from lmrrg.metrics.embedded.lexicon import DEVICE, OBSERVATION, STATE
from lmrrg.metrics.embedded.sentences import ABSENT, PRESENT, Sentence

_TELLING = frozenset([OBSERVATION, DEVICE, STATE])
_SHORTEST_RUN = 2
_LONGEST_RUN = 12
"""Words of the runs whose immediate repetition is looked for."""
_JOINTS = frozenset([",", "and", "with", "but", "no", "without", "there"])
"""Words at which a sentence is cut between two findings."""
_VIEWS = frozenset(["lateral", "decubitus", "view", "greater", "more", "or", "than", "to"])
"""Words after a side that show that it is no finding's side, or not its only one."""
_NONE: frozenset[str] = frozenset()
_BOTH = frozenset(["l", "r"])
_NORMAL = frozenset([("normal", PRESENT), ("unremarkable", PRESENT)])
_ACUTE = frozenset(["acute", "active"])
_ATTRIBUTES_TOO = frozenset(["the", "a", "an", "sided", "pleural", "pulmonary"])
"""Words, beside attributes, that a noun phrase may have before its noun."""


def shows_other_parts(reads: Sequence[Sentence]) -> bool:
    """Return whether a report is about other films or parts of the body than the chest, too."""
    return any(not coherence_lexicon().other_films.isdisjoint(read.words) for read in reads)


def faults_of_pairs(reads: Sequence[Sentence], statements: Sequence[Statement]) -> Iterator[Fault]:
    """Yield the faults between two statements of one finding at one place."""
    rules = coherence_lexicon()
    if shows_other_parts(reads):
        statements = [one for one in statements if one.claim.finding not in rules.of_any_part]
    for a, b in combinations(statements, 2):
        if a.claim.finding != b.claim.finding or a.nouns.isdisjoint(b.nouns):
            continue
        # Within a sentence, an organ and its enlargement are two mentions of one statement.
        is_one_statement = a.claim.mention == b.claim.mention or a.claim.finding in rules.organs
        if a.sentence == b.sentence and is_one_statement:
            continue
        kind = _pair_kind(a, b) if share_place(located(a), located(b)) else None
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
    return not (is_vague or is_limited(denied, stated) or is_reference(stated))


def _is_said_again(a: Statement, b: Statement) -> bool:
    """Return whether a later sentence states a finding once more, instead of speaking of it."""
    if is_reference(b) or PLACEHOLDER in b.read.words:
        return False
    if a.sentence == b.sentence:
        places = [(one.nouns, one.claim.sides, one.claim.zones) for one in (a, b)]
        return a.is_single and places[0] == places[1]
    # There may be two nodules in one place: "another nodule", "a second one of 8 mm".
    lexicon = coherence_lexicon()
    is_another = not lexicon.limits.isdisjoint(b.read.words)
    return a.is_single or not (is_another or a.claim.finding in lexicon.vague)


def _cuts_of_pair(a: Statement, b: Statement) -> tuple[Cut, Cut]:
    if a.sentence != b.sentence:
        return a.whole, b.whole
    start = a.claim.mention[-1] + 1
    end = b.claim.mention[0]
    middle = next((i for i in range(start, end) if a.read.words[i] in _JOINTS), start)
    return Cut(a.sentence, 0, middle), Cut(a.sentence, middle, len(a.read.words))


def against_normality(
    reads: Sequence[Sentence], statements: Sequence[Statement]
) -> Iterator[Fault]:
    """Yield the findings that a report states although it calls the lungs or the chest normal."""
    lexicon = coherence_lexicon()
    for number, read in enumerate(reads):
        excluded: frozenset[str] = frozenset()
        clear_sides = _clear_sides(read)
        if clear_sides:
            excluded = lexicon.against_clear_lungs
        elif _calls_chest_normal(read):
            excluded = lexicon.against_normal_chest
        for one in statements if excluded else ():
            is_excluded = one.claim.finding in excluded and one.claim.assertion == PRESENT
            is_elsewhere = clear_sides and not _is_within(one.claim, clear_sides)
            if (
                is_excluded
                and not is_elsewhere
                and one.sentence != number
                and not is_reference(one)
            ):
                cuts = (whole_sentence(number, read), one.whole)
                yield Fault("contradicted", one.claim.finding, cuts)


def _clear_sides(read: Sentence) -> frozenset[str]:
    """Return the sides of the lungs that a sentence calls clear without a limit: "l", "r"."""
    words = read.words
    if "clear" not in words or not coherence_lexicon().limits.isdisjoint(words):
        return _NONE
    i = words.index("clear")
    if read.assertions[i] != PRESENT or words[i + 1 : i + 2] == ("of",):
        return _NONE
    sides = SIDES.intersection(words)
    if "lungs" in words and not sides:
        return _BOTH
    return frozenset([side[0] for side in sides]) if "lung" in words and len(sides) == 1 else _NONE


def _is_within(claim: Claim, sides: frozenset[str]) -> bool:
    return sides == _BOTH or bool(claim.sides and claim.sides <= sides)


def _calls_chest_normal(read: Sentence) -> bool:
    """Return whether a sentence says of the whole chest that it is normal, without a limit.

    Examples: "normal chest", "no acute cardiopulmonary process".
    """
    lexicon = coherence_lexicon()
    if not (lexicon.limits - _ACUTE).isdisjoint(read.words):
        return False
    said = set(zip(read.words, read.assertions, strict=True))
    if not lexicon.whole_chest.isdisjoint(read.words):
        return not _NORMAL.isdisjoint(said)
    return ("acute", ABSENT) in said and ("cardiopulmonary", ABSENT) in said


def repeated_sentences(
    reads: Sequence[Sentence], stated: Sequence[Sequence[Statement]]
) -> Iterator[Fault]:
    """Yield the sentences that say what was said before, in the same or in other words."""
    if shows_other_parts(reads):
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
    if PLACEHOLDER not in read.words:
        whole.append(content)
    is_denial = all(map(is_bare_denial, own))
    return _Sayings(whole, [(s.claim.finding, s.claim.sides) for s in own] if is_denial else [])


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
        sides = [i for i in claim.attributes if words[i] in SIDES]
        if not SIDES.issubset([words[i] for i in sides]):
            continue
        span_words = set(words[sides[0] : sides[-1] + 2])
        if span_words.isdisjoint(_JOINTS | _VIEWS):
            cuts = tuple([Cut(statement.sentence, i, i + 1) for i in (sides[0], sides[-1])])
            yield Fault("exclusive", claim.finding, cuts)
